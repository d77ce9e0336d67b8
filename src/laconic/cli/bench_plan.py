"""``laconic bench plan``: predictions of ``laconic plan`` beside measured steps."""

from pathlib import Path
from typing import Any

import click

from laconic.bench.machine import describe_machine
from laconic.cli._options import json_option
from laconic.cli._output import make_console, progress, table_like, write_record
from laconic.plan import read_rows, validate


@click.command(name="plan")
@click.argument("measured", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def command(measured: Path, out: Path | None) -> None:
    """Compare predicted steps with those that laconic bench step has measured.

    For each link in MEASURED, the JSON of laconic bench step, the same ranks on the same network run the
    probe of laconic plan, which knows nothing of the measured steps. There must be bf16-adamw or fp32, and a
    method that compresses.

    \b
    probe      milliseconds a step, all from the probe
    predicted  the same with the compute alone of the benchmark's turns: the
               speed of a shared machine differs between minutes
    measured   the median of the benchmark
    chosen     what plan advises; its cost is its measured step over that of
               the fastest method that keeps the loss

    \b
    Example:
      laconic bench step --model transformer-0.8m --json step.json
      laconic bench plan step.json
    """
    rows = read_rows(measured)
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, description="plan", note="starting")
        cells = validate(rows, lambda note: bar.update(task, note=note))
    record = {
        "command": f"laconic bench plan {measured.name}",
        "machine": describe_machine(),
        "cells": cells,
    }
    if write_record(record, out):
        return
    console = make_console()
    for cell in cells:
        console.print(f"{cell['model']}, {cell['nodes']} ranks, {cell['link']}: milliseconds a step")
        console.print(_table(cell))
        console.print(
            f"Chosen: {cell['chosen']}; fastest that keeps the loss: {cell['best']}; cost {cell['cost']:.2f}."
        )


def _table(cell: dict[str, Any]) -> Any:
    table = table_like()
    table.add_column("method", no_wrap=True)
    for name in ("probe", "predicted", "measured", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in cell["methods"].items():
        times = (f"{found[key]:.0f}" for key in ("from_probe", "predicted", "measured"))
        table.add_row(name, *times, f"{found['ratio']:.2f}")
    return table
