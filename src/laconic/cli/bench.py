"""``laconic bench``: measurements of this machine."""

import click

from laconic.cli.bench_exchange import command as exchange
from laconic.cli.bench_kernels import command as kernels
from laconic.cli.bench_lab import command as lab
from laconic.cli.bench_optimizer import command as optimizer
from laconic.cli.bench_plan import command as plan
from laconic.cli.bench_step import command as step
from laconic.cli.bench_wire import command as wire


@click.group(name="bench")
def command() -> None:
    """Measure speed and sizes on this machine.

    \b
    Example:
      laconic bench exchange
      laconic bench kernels
      laconic bench wire
      laconic bench lab
      laconic bench step
      laconic bench plan step.json
      laconic bench optimizer
    """


command.add_command(exchange)
command.add_command(kernels)
command.add_command(lab)
command.add_command(step)
command.add_command(plan)
command.add_command(optimizer)
command.add_command(wire)
