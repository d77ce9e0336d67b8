"""Real processes for tests: n ranks that run one function and hand back what it returns."""

import faulthandler
import multiprocessing
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Children are forked from a server that has imported everything but started no thread.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "laconic"])


TORCHRUN = (
    *("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"),
    *("--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"),
)
"""Arguments of Python that start a script in two processes."""
BARE = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"}
"""An environment without the developers' settings."""


def run_python(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 200,
) -> str:
    """What a Python process of its own writes to standard output, once it has ended without an error."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_ranks(
    function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any, timeout: float = 90
) -> list:
    """``function(rank, *arguments)`` in each of n processes with torch.distributed on Gloo.

    Returns what each returned, in the order of ranks; raises with the child's traceback where one failed,
    and kills all where one has not ended in time.
    """
    meeting = folder / f"meeting-{function.__name__}-{len(list(folder.iterdir()))}"
    results = [folder / f"{meeting.name}-rank{rank}.pt" for rank in range(ranks)]
    children = [
        _CONTEXT.Process(
            target=_child,
            args=(function, rank, ranks, meeting, results[rank], timeout, arguments),
            daemon=True,
        )
        for rank in range(ranks)
    ]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join(timeout)
        hanging = [rank for rank, child in enumerate(children) if child.is_alive()]
        where = "\n".join(results[rank].with_suffix(".stacks").read_text() for rank in hanging)
        assert not hanging, f"ranks {hanging} had not ended after {timeout} s:\n{where}"
    finally:
        for child in children:
            child.kill()
    for rank, (child, result) in enumerate(zip(children, results, strict=True)):
        failed = result.with_suffix(".error")
        assert not failed.exists(), f"rank {rank} failed:\n{failed.read_text()}"
        assert child.exitcode == 0, f"rank {rank} ended with exit code {child.exitcode}"
    return [torch.load(result, weights_only=False) for result in results]


def _child(
    function: Callable[..., Any],
    rank: int,
    ranks: int,
    meeting: Path,
    result: Path,
    timeout: float,
    arguments: tuple,
) -> None:
    torch.set_num_threads(1)
    # Where a rank hangs, say where.
    stacks = result.with_suffix(".stacks").open("w")
    faulthandler.dump_traceback_later(0.9 * timeout, file=stacks)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=60),
        )
        torch.save(function(rank, *arguments), result)
        dist.destroy_process_group()
    except BaseException:
        result.with_suffix(".error").write_text(traceback.format_exc())
        raise
