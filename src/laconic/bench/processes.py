"""``Exchange.reduce_`` over real processes of this machine, on Gloo."""

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

import laconic

from .cases import METHODS, Gradients, Settings, StepRow, Tell, Times, one_thread, silent, step_rows


def measure_processes(settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    """The rows of all cases, as rank 0 sees them: phases are those of ``Exchange.stats()``.

    Raises:
        torch.multiprocessing.ProcessRaisedException: where a process failed, with its traceback.
    """
    reports = get_context("spawn").SimpleQueue()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = (settings, str(Path(folder) / "meeting"), reports)
        # Untyped in PyTorch.
        context: Any = start_processes(  # type: ignore[no-untyped-call]
            run_rank, arguments, settings.processes, join=False, start_method="spawn"
        )
        try:
            ended = False
            while not ended:
                ended = context.join(timeout=0.1)
                while not reports.empty():
                    report = reports.get()
                    if isinstance(report, str):
                        tell(report)
                    else:
                        rows += report
        finally:
            for process in context.processes:
                process.kill()
    return rows


def run_rank(rank: int, settings: Settings, meeting: str, reports: Any) -> None:
    """Be one of the processes; rank 0 puts notes (strings) and rows (lists) among the reports."""
    if sys.platform == "linux":
        # Everything stays on this machine, whatever its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    put: Callable[[Any], None] = reports.put if rank == 0 else silent
    with one_thread():
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=settings.processes,
            timeout=timedelta(seconds=300),
        )
        for case in settings.cases:
            put([asdict(row) for row in _measure(rank, settings, case, put)])
        dist.destroy_process_group()


def _measure(rank: int, settings: Settings, case: tuple[str, int], tell: Tell) -> list[StepRow]:
    method, d = case
    layouts = settings.layouts(d)
    exchanges = {s: laconic.Exchange(layout, METHODS[method]) for s, layout in layouts.items()}
    gradients = Gradients(layouts)
    phases: dict[int, list[dict[str, float]]] = {s: [] for s in layouts}
    totals = {s: Times() for s in layouts}
    for round in range(settings.rounds):
        tell(f"{method}, d = {d:,}, {settings.processes} processes")
        gradient = gradients.of(rank, round)
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
