"""The command line: one module a command, imported when it is called."""

import sys


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
    laconic(prog_name="laconic")
