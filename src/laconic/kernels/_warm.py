"""Compiling ahead of the first step."""

from collections.abc import Iterable
from contextlib import nullcontext

import torch

from laconic.kernels import _choice
from laconic.kernels._cpu.threads import using_threads
from laconic.kernels._cuts import Cuts
from laconic.kernels.scatter import add_nodes_into, scatter_add_
from laconic.kernels.selection import accumulation_dtype, move_top_k_, top_k_segments

_LENGTH = 1 << 18
"""Long enough to be cut between two threads."""


def warm_up(dtypes: Iterable[torch.dtype] = (torch.float32,)) -> None:
    """Compile the loops of selection and scattering, so that no step has to wait for it.

    Compiled code is kept on disk; with it this takes a fraction of a second, without some seconds a dtype.
    numba compiles one function at a time in a process: ``laconic warmup`` uses several processes.

    Args:
        dtypes: of the vectors that will be compressed.

    Example:
        >>> warm_up([])
    """
    for dtype in dtypes:
        wide = accumulation_dtype(dtype)
        memory, places = torch.zeros(_LENGTH, dtype=wide), torch.arange(1 << 12)
        cuts = Cuts.of([0], [_LENGTH], 2)
        loops = _choice.loops("selection")
        with using_threads(2), nullcontext() if loops is None else loops.eagerly():
            for _ in range(2):  # the second begins with a guess
                positions, values, _ = move_top_k_(memory, cuts, memory.to(dtype))
            top_k_segments(memory.to(dtype), None, cuts)
        short = Cuts.of([0], [300], 2)
        top_k_segments(memory[:300].to(dtype), memory[:300], short)
        top_k_segments(memory[:300].to(dtype), None, short)
        add_nodes_into(memory, [positions], [values], [1.0], torch.empty_like(memory))
        scatter_add_(memory, places.unsqueeze(0), memory[: places.numel()].clone().unsqueeze(0))


def keeps_compiled() -> bool:
    """Whether compiled loops are kept on disk, so that another process finds them."""
    jit = _choice.loops("_jit")
    return jit is not None and bool(jit.keeps())
