"""``laconic bench optimizer``: the time of a step of CompressedAdamW against PyTorch's AdamW."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from laconic.bench import optimizer as bench
from laconic.bench.machine import describe_machine
from laconic.cli._options import count, json_option
from laconic.cli._output import make_console, progress, table_like, write_record

LABELS = {
    "fused": "AdamW(fused=True)",
    "foreach": "AdamW(foreach=True)",
    "topk": "CompressedAdamW, TopK, 1 bit",
    "block": "CompressedAdamW, BlockTopK, 1 bit",
    bench.MULTIPLY: "x.mul_(1) of as many numbers",
}


@click.command(name="optimizer")
@click.option(
    "--dim", callback=count, default="10e6", show_default=True, metavar="N", help="Numbers of all parameters."
)
@click.option(
    "--tensors", multiple=True, type=click.IntRange(min=1), default=(8, 150), show_default=True,
    help="Number of parameters; may be given several times.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(min=1), default=11, show_default=True,
    help="Repeats, of which the median counts.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")
@json_option
def command(dim: int, tensors: tuple[int, ...], repeats: int, threads: int, out: Path | None) -> None:
    """Measure a step of CompressedAdamW against PyTorch's AdamW, on one rank without a network.

    Two thirds of the parameters are matrices, one third vectors of 256 numbers sent in bfloat16. A step of
    CompressedAdamW has its defaults: clip, decay, EF14, packing. All optimisers get the same gradients and
    take turns in every round. Times are medians in milliseconds; "ratio" is the median over rounds of a
    step's time over that of AdamW(fused=True), "CPU" the same of processor time, which other programs on the
    machine change less. A last table says what each pass of a step reads and writes.

    \b
    Example:
      laconic bench optimizer
      laconic bench optimizer --dim 1e6 --tensors 150 --json optimizer.json
    """
    settings = bench.OptimizerSettings(dim, tuple(tensors), repeats=repeats, threads=threads)
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=bench.count_notes(settings), description="optimizer", note="starting")
        found = bench.measure(settings, lambda note: bar.update(task, note=note, advance=1))
    record = {"machine": describe_machine() | {"threads": str(threads)}, **found}
    if write_record(record, out):
        return
    console = make_console()
    console.print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    console.print(f"{settings.dim:,} parameters in float32: milliseconds")
    console.print(_steps(found["rows"]))
    console.print("CompressedAdamW: bytes a parameter")
    console.print(_passes(found["bytes"]))


def _steps(rows: list[dict[str, Any]]) -> Table:
    table = table_like()
    for name in ("tensors", "optimizer", "kept", "step", "ratio", "CPU"):
        table.add_column(name, justify="left" if name == "optimizer" else "right", no_wrap=True)
    for i, row in enumerate(rows):
        last = i + 1 < len(rows) and rows[i + 1]["tensors"] != row["tensors"]
        kept = "" if row["fraction"] is None else f"{row['fraction']:.1%}"
        numbers = f"{row['ms']:.3g}", f"{row['ratio']:.2f}", f"{row['cpu_ratio']:.2f}"
        table.add_row(str(row["tensors"]), LABELS[row["name"]], kept, *numbers, end_section=last)
    return table


def _passes(streams: dict[str, tuple[int, int]]) -> Table:
    table = table_like()
    for name in ("pass", "read", "written"):
        table.add_column(name, justify="left" if name == "pass" else "right")
    for name, (read, written) in streams.items():
        table.add_row(name, str(read), str(written))
    table.add_section()
    table.add_row("all", *(str(sum(column)) for column in zip(*streams.values(), strict=True)))
    return table
