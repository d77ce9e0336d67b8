"""``laconic warmup``: compile the hot loops ahead."""

import time
from importlib.util import find_spec

import click
import torch
from rich.console import Console

from laconic import kernels
from laconic.cli._output import progress
from laconic.comm._warm import warm_up
from laconic.compressors import NAMES, parse_compressor
from laconic.feedback import EF14
from laconic.kernels import coding
from laconic.layout import Layout


@click.command(name="warmup")
def command() -> None:
    """Compile all hot loops for this machine, so that no training step has to wait for them.

    The compiled loops are kept on disk, and later processes load them in a fraction of a second. An image for
    many machines of one kind can run this once when it is built.

    \b
    Example:
      laconic warmup
    """
    console = Console(highlight=False)
    if find_spec("numba") is None:
        console.print("nothing to compile: numba is missing, so the plain loops run")
        return
    start = time.perf_counter()
    with progress(Console(stderr=True)) as (bar, task):
        bar.update(task, total=2 + len(NAMES), description="kernels")
        kernels.warm_up((torch.float32, torch.bfloat16, torch.float64))
        bar.advance(task)
        coding.warm_up()
        bar.advance(task)
        for name in NAMES:
            bar.update(task, description=name)
            _warm_up(name)
            bar.advance(task)
    console.print(f"the hot loops are ready, after {time.perf_counter() - start:.1f} s")


def _warm_up(name: str) -> None:
    for suffix in ("", ":0.01", ":8", ":1:64"):
        try:
            compressor = parse_compressor(name + suffix)
        except (ValueError, TypeError):
            continue
        warm_up(Layout.flat(1 << 15), EF14(compressor.contractive()))
        return
