"""``laconic warmup``: JIT compilation of all loops ahead, in several processes."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context

import click
import torch

from laconic import kernels
from laconic.cli._output import make_console, progress
from laconic.comm._warm import warm_up
from laconic.compressors import NAMES, TopK, parse_compressor
from laconic.feedback import EF14, EF21
from laconic.kernels._compiling import silence, taken
from laconic.layout import Layout

_KERNELS = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.bfloat16)}
_CODING = "the wire"
UNITS = [*_KERNELS, _CODING, *NAMES]
"""Units of compilation, the slowest first."""
_MOST = 8
"""Largest number of processes; each takes some 300 MB."""


@click.command(name="warmup")
@click.option("--jobs", type=click.IntRange(1), help="Processes that compile side by side.  [default: cores]")
def command(jobs: int | None) -> None:
    """Compile all hot loops for this machine, so that no training step has to wait for them.

    The compiled loops are kept on disk, and later processes load them in a fraction of a second. An image for
    many machines of one kind can run this once when it is built.

    \b
    Example:
      laconic warmup
    """
    console = make_console()
    if find_spec("numba") is None:
        console.print("nothing to compile: numba is missing, so the plain loops run")
        return
    if not kernels.keeps_compiled():
        console.print(
            "nothing can be kept: no folder for compiled loops can be written, so every process compiles for "
            "itself; set NUMBA_CACHE_DIR to a folder that can"
        )
        return
    start = time.perf_counter()
    with _locked(), progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=len(UNITS), description="compiling")
        for unit in _compiled(jobs or min(_cores(), _MOST)):
            bar.update(task, advance=1, note=unit)
    console.print(f"the hot loops are ready, after {time.perf_counter() - start:.1f} s")


@contextmanager
def _locked() -> Iterator[None]:
    """Let training processes wait meanwhile; the processes of this command do not."""
    lock = taken(kernels.compiled_folder())
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiled(jobs: int) -> Iterator[str]:
    """The units in the order in which they are ready.

    numba compiles one function at a time in a process, so there are several processes. A loop that two of
    them want at the same moment is compiled twice, and kept once.
    """
    if jobs == 1:
        with silence():
            yield from map(compile_unit, UNITS)
        return
    # Not forked: a child of a process with threads may hang.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (1,)) as workers:
        for ended in as_completed([workers.submit(_compile_silently, unit) for unit in UNITS]):
            yield ended.result()


def _compile_silently(unit: str) -> str:
    with silence():
        return compile_unit(unit)


def compile_unit(unit: str) -> str:
    """Compile what one dtype's selection, the wire, or one compressor needs; the unit's name."""
    if unit in _KERNELS:
        kernels.warm_up((_KERNELS[unit],))
        kernels.warm_up_norms((_KERNELS[unit],))
    elif unit == _CODING:
        kernels.warm_up_packing()
    else:
        _warm_up(unit)
    return unit


def _warm_up(name: str) -> None:
    """Compile what a compressor needs, alone and behind Top-k."""
    shapes = {"compress": (1 << 15,), "bfloat16": (8,), "exact": (8,)}
    layout = Layout.of(shapes, exact=["exact"], bfloat16=["bfloat16"])
    for suffix in ("", ":0.01", ":8", ":1:64"):
        try:
            alone = parse_compressor(name + suffix).contractive()
        except (ValueError, TypeError):
            continue
        compressors = [alone]
        with suppress(TypeError):  # a sparsifier comes first in any chain
            compressors.append(TopK(0.01) >> alone)
        for compressor, dtype in product(compressors, (torch.float32, torch.bfloat16)):
            for method in (EF14, EF21):
                with suppress(ValueError):  # it does not suit the method
                    warm_up(layout, method(compressor), dict.fromkeys(shapes, dtype))
        return
