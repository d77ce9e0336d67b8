"""The demo's processes, started by PyTorch's launcher for local processes."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from laconic.demo._methods import Method
from laconic.demo._worker import Run, Settings, work

OnStep = Callable[[str, int, float], None]
"""Called with a method's name, a step and the latest validation loss."""


def run_all(settings: Settings, methods: Sequence[Method], on_step: OnStep) -> list[Run]:
    """Train with every method, one after another, in the same processes.

    The processes meet over a file and talk over this machine's loopback; no network is needed.

    Args:
        settings: what all methods have in common.
        methods: which to run.
        on_step: called in this process after every step.

    Returns:
        A run for each method, in their order.

    Raises:
        torch.multiprocessing.ProcessRaisedException: where a process failed, with its traceback.
    """
    reports = get_context("spawn").SimpleQueue()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = (settings, tuple(methods), str(Path(folder) / "meeting"), reports)
        # Untyped in PyTorch.
        context: Any = start_processes(  # type: ignore[no-untyped-call]
            work, arguments, settings.nodes, join=False, start_method="spawn"
        )
        try:
            ended = False
            while not ended:
                ended = context.join(timeout=0.1)
                while not reports.empty():
                    _take(reports.get(), runs, on_step)
        finally:
            for process in context.processes:
                process.kill()
    return runs


def _take(report: dict[str, Any], runs: list[Run], on_step: OnStep) -> None:
    if "run" in report:
        runs.append(Run(**report["run"]))
    else:
        on_step(report["name"], report["step"], report["loss"])
