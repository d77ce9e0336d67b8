"""``laconic bench kernels``: senders against PyTorch's Top-k and against reading memory."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from laconic.bench.machine import describe_machine
from laconic.cli._options import file_option
from laconic.cli._output import make_console, print_json, progress, table_like, write_record


@click.command(name="kernels")
@click.option("--quick", is_flag=True, help="Shorter vectors and fewer repeats: seconds instead of a minute.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Repeats, of which the fastest counts.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@file_option("--out", help="Write the JSON here as well.", dash=True)
def command(quick: bool, repeats: int, device: str, as_json: bool, out: Path | None) -> None:
    """Measure EF21's step and its parts on this machine.

    Each ratio comes from runs in turns. "topk" is how many times longer the step takes when it is written
    with torch.topk; "floor" how many times longer it takes than reading its two inputs, by the faster of
    torch.sum and a loop that prefetches. "equal" says that positions, values and memory were those of the
    plain definition.

    \b
    Example:
      laconic bench kernels
      laconic bench kernels --quick --json
    """
    where = torch.device(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no GPU that PyTorch can use; leave --device out to measure the CPU")
    from laconic.bench.kernel_jobs import kernel_jobs

    jobs = kernel_jobs(where, quick, repeats)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in jobs}
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=len(jobs), description="kernels")
        for name, note, measure in jobs:
            bar.update(task, note=note)
            tables[name] += [asdict(row) for row in measure()]
            bar.advance(task)
    record = {"machine": describe_machine(where), "repeats": repeats, "quick": quick, **tables}
    if write_record(record, out):
        return
    if as_json:
        print_json(record)
        return
    console = make_console()
    console.print(", ".join(f"{key} {value}" for key, value in describe_machine(where).items()))
    for name, title in _TITLES.items():
        if tables.get(name):
            _print(console, title, tables[name])


_TITLES = {
    "steps": "EF21's step: a sender selects among g - h and adds to h",
    "small": "Selection among few, 1 % kept, one thread: microseconds",
    "segments": "The same numbers in one segment and in many, 1 % kept: EF21's step",
    "hostile": "Hostile data, 2 million, one thread: times the time of normal numbers",
    "rates": "Every number kept, one thread: GB of input a second through a sender",
}


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = table_like()
    for name in rows[0]:
        left = name in ("name", "goal")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    console.print(title)
    console.print(table)


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if name == "ms" or value < 10 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
