"""``laconic bench wire``: size and speed of packed messages."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import click
import torch
from rich.console import Console

from laconic.cli._output import make_console, print_json, progress, table_like


@click.command(name="wire")
@click.option(
    "--dim",
    type=click.IntRange(min=10_000),
    default=25_000_000,
    show_default=True,
    help="Length of the vector for the tables of positions and of normal numbers.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Runs of which the fastest counts.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=60,
    show_default=True,
    help="Training rounds before the real messages are taken; 0 leaves them out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(dim: int, repeats: int, rounds: int, as_json: bool) -> None:
    """Measure the bits and the speed of packed messages, on one core.

    Bits a position stand beside the entropy bound log2 C(d, k) / k. Speeds are those of the fastest of
    several runs; on a machine that others use, only their ratios mean something. Real messages are EF21's,
    of the demo's transformer on the sources of Python's standard library.

    \b
    Example:
      laconic bench wire
      laconic bench wire --dim 1000000 --rounds 0 --json
    """
    from laconic.bench import wire as bench

    torch.set_num_threads(1)
    console = make_console()
    with progress(make_console(stderr=True)) as (bar, task):
        steps: dict[str, Callable[[], Iterator[Any]]] = {
            "positions": lambda: bench.measure_positions(dim, repeats),
            "values": lambda: bench.measure_values(max(1, dim // 100), repeats),
            "messages": lambda: bench.measure_messages(dim),
            "real": lambda: bench.measure_real(rounds) if rounds else iter(()),
        }
        bar.update(task, total=len(steps))
        tables: dict[str, list[dict[str, Any]]] = {}
        for name, measure in steps.items():
            bar.update(task, description=name)
            tables[name] = [asdict(row) for row in measure()]
            bar.advance(task)
    if as_json:
        print_json({"dim": dim, "repeats": repeats, "rounds": rounds, **tables})
        return
    _print(console, f"Positions, uniform, d = {dim:,}", tables["positions"], "encode, decode, both: M/s")
    _print(console, "Values", tables["values"], "encode, decode: GB/s of float32")
    _print(
        console,
        "Messages, 1 % with 4-bit values, frame excluded",
        tables["messages"] + tables["real"],
        "bits for each kept coordinate",
    )


def _print(console: Console, title: str, rows: list[dict[str, Any]], units: str) -> None:
    table = table_like()
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("name", "form") else "right")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console.print(f"{title} ({units})")
    console.print(table)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
