"""``laconic bench exchange``: the time of a whole exchange, for one segment and for many."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from laconic.bench import exchange as bench
from laconic.bench.cases import METHODS, BenchSettings
from laconic.bench.machine import describe_machine
from laconic.cli._options import counts, json_option
from laconic.cli._output import make_console, progress, quantity, table_like, write_record

LABELS = {"ef21": "EF21, Top-1 % in bfloat16", "ef14": "EF14, Top-1 % in 1 bit"}


@click.command(name="exchange")
@click.option(
    "--dim", callback=counts, default="10e6,0.4e6", show_default=True, help="Lengths of the vector."
)
@click.option(
    "--segments",
    callback=counts,
    default="1,30,150,640",
    show_default=True,
    help="Segments of the layouts.",
)
@click.option("--nodes", callback=counts, default="4,8", show_default=True, help="Simulated ranks, 2 to 16.")
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Names, separated by commas.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=11,
    show_default=True,
    help="Repeats, of which the median counts.",
)
@click.option(
    "--processes",
    type=click.IntRange(2, 16),
    metavar="N",
    help="Measure N real processes on Gloo instead of simulated ranks.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="A tenth of the length, at most 150 segments, one number of ranks, 3 repeats.",
)
@json_option
def command(
    dim: tuple[int, ...],
    segments: tuple[int, ...],
    nodes: tuple[int, ...],
    methods: str,
    repeats: int,
    processes: int | None,
    quick: bool,
    out: Path | None,
) -> None:
    """Measure a whole exchange, with one segment and with many.

    One rank's work in a step, on one thread: stage (feedback and compressor), pack, unpack every rank's
    message, receive (the estimate of the mean), commit (the memories are updated). Two thirds of the segments
    are matrices that share the vector, one third are exempt vectors of 256 numbers sent in bfloat16. The
    layouts take turns in every round. Times are medians in milliseconds; "ratio" is the median over rounds
    of a step's time over that of one segment, "CPU" the same of processor time, which other programs on the
    machine change less.

    A last table holds Exchange.reduce_ of one segment on a single rank against its parts and against
    x.mul_(1), which reads and writes the vector once; "equal" says that both ways gave the same estimates.

    With --processes, every process calls Exchange.reduce_, and the phases are those of Exchange.stats() on
    rank 0: waiting for slower ranks is in "communicate".

    \b
    Example:
      laconic bench exchange
      laconic bench exchange --quick --methods ef21 --json exchange.json
      laconic bench exchange --processes 4 --segments 150
    """
    if quick:
        dim, nodes, repeats = tuple(d // 10 for d in dim), nodes[:1], min(repeats, 3)
        segments = tuple(min(count, 150) for count in segments)
    names = tuple(name.strip() for name in methods.split(","))
    settings = BenchSettings(dim, segments, nodes, names, repeats, processes or 0)
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=bench.count_notes(settings), description="exchange", note="starting")
        told = 0

        def advance(note: str) -> None:
            nonlocal told
            bar.update(task, note=note, completed=told)
            told += 1

        found = bench.measure(settings, advance)
    record = {"machine": describe_machine() | {"threads": "1"}, **found}
    if write_record(record, out):
        return
    console = make_console()
    console.print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    for method, d in settings.cases:
        rows = [
            row
            for row in found.get("simulated", []) + found.get("processes", [])
            if (row["method"], row["d"]) == (method, d)
        ]
        console.print(f"{LABELS[method]}, d = {d:,}: milliseconds")
        console.print(_steps(rows))
    if "whole" in found:
        console.print("Exchange.reduce_ of one segment, a single rank: milliseconds")
        console.print(_whole(found["whole"]))


def _steps(rows: list[dict[str, Any]]) -> Table:
    table = table_like()
    for name in ("n", "segments", *rows[0]["phases"], "total", "ratio", "CPU"):
        table.add_column(name, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        last_of_n = i + 1 < len(rows) and rows[i + 1]["nodes"] != row["nodes"]
        times = [_shown(value) for value in (*row["phases"].values(), row["ms"])]
        ratios = [f"{row[name]:.2f}" for name in ("ratio", "cpu_ratio")]
        table.add_row(str(row["nodes"]), str(row["segments"]), *times, *ratios, end_section=last_of_n)
    return table


def _whole(rows: list[dict[str, Any]]) -> Table:
    table = table_like()
    for name in ("method", "d", "reduce_", "parts", "ratio", "CPU", "x.mul_(1)", "ratio", "CPU", "equal"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["method"],
            quantity(row["d"]),
            _shown(row["ms"]),
            _shown(row["parts_ms"]),
            f"{row['to_parts']:.2f}",
            f"{row['cpu_to_parts']:.2f}",
            _shown(row["pass_ms"]),
            f"{row['to_pass']:.1f}",
            f"{row['cpu_to_pass']:.1f}",
            "yes" if row["equal"] else "NO",
        )
    return table


def _shown(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
