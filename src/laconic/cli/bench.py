"""``laconic bench``: measurements of this machine."""

import click

from laconic.cli.bench_wire import command as wire


@click.group(name="bench")
def command() -> None:
    """Measure on this machine; nothing here is a test.

    \b
    Example:
      laconic bench wire
    """


command.add_command(wire)
