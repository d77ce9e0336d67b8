"""JIT warm-up of selection and packing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np
import torch

from laconic.kernels import _dispatch
from laconic.kernels._code_dtypes import CODE_DTYPES
from laconic.kernels._compiling import compilation
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.cpu.threads import get_threads, using_threads
from laconic.kernels.group_codes import code_bytes, get_codes, put_codes
from laconic.kernels.group_positions import get_adaptive, get_positions, put_adaptive, put_positions
from laconic.kernels.optimizer import (
    adamw_advance,
    adamw_update,
    apply_steps,
    momentum_update,
    scale_segments,
)
from laconic.kernels.position_plan import position_plan
from laconic.kernels.segmented import SegmentedInput
from laconic.kernels.selection import select_segments
from laconic.kernels.sums import squared_norm, squared_norms
from laconic.kernels.tables import SegmentTable, Vectors, accumulation_dtype

Arithmetic = Literal["adamw", "momentum", "scale"]

_LENGTH = 1 << 18
"""Long enough to be cut between two threads."""


def warm_up(dtypes: Iterable[torch.dtype] = (torch.float32,)) -> None:
    """Compile the loops of selection for one and for several threads, so that no step has to wait for it.

    Compiled code is kept on disk; with it this takes a fraction of a second, without some seconds a dtype.
    numba compiles one function at a time in a process: ``laconic warmup`` uses several processes.

    Args:
        dtypes: of the vectors that will be compressed.

    Example:
        >>> warm_up([])
    """
    loops = _dispatch.cpu_kernels("selection")
    for dtype in dtypes:
        for length in (_LENGTH, 300):
            with using_threads(2), nullcontext() if loops is None else loops.eagerly():
                _select_in_every_way(length, dtype)


def _select_in_every_way(length: int, dtype: torch.dtype) -> None:
    cuts = SelectionTable.of([0], [length], 2)
    wide = torch.zeros(length, dtype=accumulation_dtype(dtype), device="cpu")
    x, memory, out = (Vectors.flat(each, cuts.starts) for each in (wide.to(dtype), wide, wide.clone()))
    for salt in range(2):  # the second begins with a guess
        select_segments(x, None, cuts, salt=salt)
        select_segments(x, memory, cuts, salt=salt)
        select_segments(x, memory, cuts, salt=salt, move="track")
        select_segments(x, memory, cuts, salt=salt, move="drain", out=out)
    select_segments(None, memory, cuts, move="drain")


def warm_up_packing() -> None:
    """Compile the loops that pack and unpack positions and codes."""
    positions = np.arange(0, 200, 2)
    plan = position_plan([200], [positions.size])
    data = np.empty(plan.nbytes, np.uint8)
    put_positions(positions, plan, data)
    get_positions(data, plan)
    warm_up_adaptive()
    bounds = np.array([0, 8])
    for dtype in CODE_DTYPES:
        codes, packed = torch.ones(8, dtype=dtype, device="cpu"), np.empty(code_bytes(8, 1, 2), np.uint8)
        put_codes(codes, None, bounds, None, 4, 1, 2, packed)
        get_codes(packed, None, bounds, None, 4, 1, 2, torch.iinfo(dtype).max)


def warm_up_adaptive() -> None:
    """Compile the loops that pack and unpack positions by their density."""
    near, plan = np.arange(100), position_plan([10_000], [100])  # so near that Rice coding is shorter
    get_adaptive(put_adaptive(near, plan), plan)


def warm_up_norms(dtypes: Iterable[torch.dtype]) -> None:
    """Compile the loops of squared norms, for gradients of these dtypes that are clipped."""
    own = list(dict.fromkeys(dtypes))
    with compilation(len(own), speaks=False) as progress:
        for dtype in own:
            squared_norm(zeros := torch.zeros(_LENGTH, dtype=dtype, device="cpu"))
            table = SegmentTable((0,), (_LENGTH,), (_LENGTH,), (0,))
            squared_norms(SegmentedInput.of(Vectors.flat(zeros, table.start_array), table))
            progress.step()


def warm_up_optimizer(dtypes: Iterable[torch.dtype], arithmetic: Arithmetic) -> None:
    """Compile the loops of an optimiser's arithmetic and of the parameters' step.

    Args:
        dtypes: of the parameters in main memory, and their gradients.
        arithmetic: what makes updates of gradients. Of "adamw", selection computes them too from then on.
    """
    own = list(dict.fromkeys(dtypes))
    if own and arithmetic == "adamw" and (loops := _dispatch.cpu_kernels("selection")) is not None:
        loops.compile_updates()
    numels, zero = np.array([8]), np.array([0])
    with compilation(len(own), speaks=False) as progress:
        for dtype in own:
            x, wide = (
                torch.zeros(8, dtype=dtype, device="cpu"),
                torch.zeros(8, dtype=accumulation_dtype(dtype), device="cpu"),
            )
            gradient, parameter = Vectors.flat(x, zero), Vectors.flat(x.clone(), zero)
            out, first, second = (Vectors.flat(wide.clone(), zero) for _ in range(3))
            if arithmetic == "adamw":
                adamw_update(out, gradient, first, second, np.ones((1, 9)), numels)
                adamw_advance(first, second, gradient, np.ones((1, 9)), numels)
            else:
                scale_segments(out, gradient, np.ones((1, 2)), numels)
            if arithmetic == "momentum":
                momentum_update(out, gradient, first, np.ones((1, 3)), numels)
            apply_steps(parameter, out, np.ones((1, 2)), numels)
            progress.step()


@contextmanager
def sharing_threads(numbers: int) -> Iterator[None]:
    """Inside, two threads share short vectors too, where they would share one of so many numbers."""
    loops = _dispatch.cpu_kernels("selection")
    if loops is None or get_threads() == 1 or not loops.is_shared(numbers):
        yield
        return
    with using_threads(2), loops.eagerly():
        yield


def keeps_compiled() -> bool:
    """Whether compiled loops are kept on disk, so that another process finds them."""
    return compiled_folder() is not None


def compiled_folder() -> str | None:
    """The folder where compiled loops are kept; None: they are not."""
    jit = _dispatch.cpu_kernels("_jit")
    return None if jit is None else jit.folder()
