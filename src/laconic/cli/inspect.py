"""``laconic inspect``: contents of a packed message or a checkpoint."""

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from laconic.cli._output import make_console, print_json, table_like
from laconic.wire import MessageReport, inspect_checkpoint, inspect_message, is_message


@click.command(name="inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(file: Path, as_json: bool) -> None:
    """Show what FILE holds: a packed message, or a checkpoint that torch.save wrote.

    A message is what packed = laconic.pack(message, layout=layout) makes, written to a file by
    file.write(packed.cpu().numpy().tobytes()). No code in the file is run.

    \b
    Example:
      laconic inspect message.bin
      laconic inspect checkpoint.pt
    """
    data = file.read_bytes()
    console = make_console()
    if is_message(data):
        report = inspect_message(data)
        if as_json:
            print_json(report.as_dict())
        else:
            _print_message(console, report)
        return
    rows = inspect_checkpoint(file)
    if as_json:
        print_json(dict(rows))
        return
    table = table_like()
    table.add_column("name")
    table.add_column("holds")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_message(console: Console, report: MessageReport) -> None:
    each = "" if report.bits_per_kept is None else f", {report.bits_per_kept:.2f} bits each"
    console.print(
        f"A message of version {report.version}: {report.nbytes:,} bytes, round {report.round}, layout "
        f"{report.digest:#010x}, {', '.join(report.flags)}"
    )
    console.print(
        f"{report.kept:,} of {report.d:,} coordinates{each}; "
        f"the information in it is {report.entropy_bits:,} bits"
    )
    table = table_like()
    for name in ("segment", "d", "kept", "positions", "values", "smallest", "largest"):
        table.add_column(name, justify="left" if name in ("segment", "positions", "values") else "right")
    for number, segment in enumerate(report.segments):
        title = Text(str(number) if segment.name is None else f"{segment.name} {segment.shape}")
        ends = ("-" if v is None else f"{v:.3g}" for v in (segment.smallest, segment.largest))
        table.add_row(title, f"{segment.d:,}", f"{segment.kept:,}", segment.positions, segment.values, *ends)
    console.print(table)
