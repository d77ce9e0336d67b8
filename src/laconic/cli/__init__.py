"""The command line: one module a command, imported when it is called."""

import codecs
import io
import sys
import unicodedata

_PLAIN = {"✓": "yes", "✗": "x", "∇": "grad ", "×": "x", "≤": "<=", "²": "^2"}


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        from laconic.cli._group import laconic
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(
            f"laconic: the command line needs {error.name}: pip install 'laconic[lab,cli]'", file=sys.stderr
        )
        sys.exit(2)
    codecs.register_error("laconic-ascii", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="laconic-ascii")
    laconic(prog_name="laconic")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What an output that is not UTF-8 shows of characters that it lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(c, unicodedata.normalize("NFKD", c)) for c in lacking)
    return plain.encode("ascii", "ignore").decode() or "?", error.end
