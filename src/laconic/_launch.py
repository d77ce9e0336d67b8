"""Launcher of local processes that form one Gloo group and report to their parent."""

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

Put = Callable[[Any], None]
"""Function that sends an object to the parent process."""


def launch(work: Callable[[Put], None], processes: int, on_report: Put, timeout_s: float = 120.0) -> None:
    """Call ``work(put)`` in several processes, which meet over a file and talk over the loopback device.

    Args:
        work: a function that can be pickled.
        processes: how many.
        on_report: called in this process with each object.
        timeout_s: of the group's collectives.

    Raises:
        torch.multiprocessing.ProcessRaisedException: where a process failed, with its traceback.
    """
    reports = get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (work, processes, f"file://{Path(folder) / 'meeting'}", reports, timeout_s)
        # Untyped in PyTorch.
        context: Any = start_processes(  # type: ignore[no-untyped-call]
            _run_rank, arguments, processes, join=False, start_method="spawn"
        )
        try:
            ended = False
            while not ended:
                ended = context.join(timeout=0.1)
                while not reports.empty():
                    on_report(reports.get())
        finally:
            for process in context.processes:
                process.kill()


def _run_rank(
    rank: int, work: Callable[[Put], None], processes: int, meeting: str, reports: Any, timeout_s: float
) -> None:
    if sys.platform == "linux":
        # Everything stays on this machine, whatever its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes, timeout=timeout)
    try:
        work(reports.put)
    finally:
        dist.destroy_process_group()
