"""``laconic bench kernels``: the hot loops against PyTorch's Top-k and against reading the memory."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from laconic.bench.machine import describe_machine
from laconic.cli._output import finite, print_json, progress, table_like
from laconic.compressors import Compressor


@click.command(name="kernels")
@click.option("--quick", is_flag=True, help="Shorter vectors and fewer repeats: seconds instead of a minute.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Of which the fastest counts."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here as well.")
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
    jobs = _jobs(where, quick, repeats)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in jobs}
    with progress(Console(stderr=True)) as (bar, task):
        bar.update(task, total=len(jobs), description="kernels")
        for name, note, measure in jobs:
            bar.update(task, note=note)
            tables[name] += [asdict(row) for row in measure()]
            bar.advance(task)
    record = {"machine": describe_machine(where), "repeats": repeats, "quick": quick, **tables}
    if out is not None:
        out.write_text(json.dumps(finite(record), indent=2) + "\n")
    if as_json:
        print_json(record)
        return
    console = Console(highlight=False)
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

Job = tuple[str, str, Callable[[], list[Any]]]


def _jobs(where: torch.device, quick: bool, repeats: int) -> list[Job]:
    from laconic.bench import hostile as against
    from laconic.bench import kernels as bench

    jobs: list[Job] = []

    def step(name: str, d: int, share: float, count: int, goal: str) -> None:
        def measure() -> list[Any]:
            return [bench.measure_step(name, d, share, count, goal, repeats, where)]

        jobs.append(("steps", f"{name} {100 * share:g} % of {d:,}, {count} threads", measure))

    def small(d: int) -> list[Any]:
        return [bench.measure_small(d, "≤ topk or + 20", repeats)]

    large = 2_000_000 if quick else 25_000_000
    if where.type == "cuda":
        large = 10_000_000 if quick else 100_000_000
        step("TopK", large, 0.01, 1, "≥ 8, ≤ 3")
        step("TopK", large, 0.001, 1, "")
        step("BlockTopK", large, 0.01, 1, "")
        return jobs
    most = torch.get_num_threads()
    if most > 1:
        step("TopK", large, 0.01, 2, "≥ 45, ≤ 2.0")
        step("TopK", large, 0.001, 2, "≤ 1.3")
    step("TopK", large, 0.01, 1, "≥ 33, ≤ 1.6")
    step("TopK", large, 0.001, 1, "≤ 1.3")
    if most > 1:
        step("BlockTopK", large, 0.01, 2, "")
    step("BlockTopK", large, 0.01, 1, "")
    step("TopK", 1_000_000, 0.01, min(2, most), "≥ 13")
    for d in (100, 1_000, 10_000, 100_000):
        jobs.append(("small", f"{d} numbers", partial(small, d)))

    def many(d: int, numbers: dict[int, str]) -> list[Any]:
        ways = {
            f"{n} segments": (bench.compressor_of("TopK", 0.01), bench.even(d, n), goal)
            for n, goal in numbers.items()
        }
        ways["blocks of 1024"] = bench.compressor_of("BlockTopK", 0.01), bench.even(d, 1), "< 1"
        return bench.measure_many(d, ways, 2 * repeats, where)

    total = 1_600_000 if quick else 6_400_000
    jobs.append(("segments", "many segments", partial(many, total, {100: "≤ 1.15", 640: "≤ 1.5"})))
    jobs.append(("segments", "blocks", partial(many, large, {})))

    def hostile(name: str) -> list[Any]:
        return [against.measure_hostile(name, 2_000_000, "≤ 3", repeats)]

    for name in against.HOSTILE:
        jobs.append(("hostile", name, partial(hostile, name)))

    def rate(row: tuple[str, Compressor, str]) -> list[Any]:
        return [bench.measure_rate(*row, large, repeats)]

    for row in bench.RATES:
        jobs.append(("rates", row[0], partial(rate, row)))
    return jobs


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
