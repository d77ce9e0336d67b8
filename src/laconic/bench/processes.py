"""``Exchange.reduce_`` over real processes of this machine, on Gloo."""

from dataclasses import asdict
from functools import partial
from typing import Any

import torch.distributed as dist

import laconic
from laconic._launch import Put, launch

from .cases import METHODS, BenchSettings, Gradients, Progress, StepRow, no_progress, one_thread, step_rows
from .timing import Times


def measure_processes(settings: BenchSettings, progress: Progress) -> list[dict[str, Any]]:
    """The rows of all cases, as rank 0 sees them: phases are those of ``Exchange.stats()``.

    Raises:
        torch.multiprocessing.ProcessRaisedException: where a process failed, with its traceback.
    """
    rows: list[dict[str, Any]] = []

    def take(report: str | list[dict[str, Any]]) -> None:
        if isinstance(report, str):
            progress(report)
        else:
            rows.extend(report)

    launch(partial(run_rank, settings), settings.processes, take, timeout_s=300.0)
    return rows


def run_rank(settings: BenchSettings, put: Put) -> None:
    """The work of each process; rank 0 puts notes (strings) and lists of rows."""
    put = put if dist.get_rank() == 0 else no_progress
    with one_thread():
        for case in settings.cases:
            put([asdict(row) for row in _measure(settings, case, put)])


def _measure(settings: BenchSettings, case: tuple[str, int], progress: Progress) -> list[StepRow]:
    method, d = case
    layouts = settings.layouts(d)
    exchanges = {s: laconic.Exchange(layout, METHODS[method]) for s, layout in layouts.items()}
    gradients = Gradients(layouts)
    phases: dict[int, list[dict[str, float]]] = {s: [] for s in layouts}
    totals = {s: Times() for s in layouts}
    for round in range(settings.rounds):
        progress(f"{method}, d = {d:,}, {settings.processes} processes")
        gradient = gradients.of(dist.get_rank(), round)
        for s, exchange in exchanges.items():
            tensors = {
                segment.name: gradient[segment.offset : segment.end].clone()
                for segment in layouts[s].segments
            }
            before = exchange.stats().seconds
            dist.barrier()
            totals[s].add(partial(exchange.reduce_, tensors))
            after = exchange.stats().seconds
            phases[s].append({name: after[name] - before[name] for name in after})
    for exchange in exchanges.values():
        exchange.close()
    return step_rows(case, settings.processes, phases, totals)
