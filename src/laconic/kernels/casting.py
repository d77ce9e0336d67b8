"""Numbers rounded to a narrower dtype."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.magnitudes import are_finite
from laconic.kernels.segmented import Reading, SegmentedInput, in_shares
from laconic.kernels.steps import Step


def cast_segments(inp: SegmentedInput, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """The numbers in another dtype, to the nearest and ties to even; what is too large becomes its largest.

    Args:
        inp: the segments.
        dtype: bfloat16, float16, float32, or the accumulation dtype.

    Returns:
        (K,), and whether all numbers were finite.
    """

    def plain() -> tuple[Tensor, bool]:
        found, finite = [torch.empty(0, dtype=dtype)], True
        for step in inp.steps():
            found.append(_cast_plainly(step, dtype))
            finite = finite and bool(step.numbers().isfinite().all())
        return torch.cat(found), finite

    return dispatch("casting", lambda loops: _cast(loops, inp.reading(), dtype), plain)


def _cast_plainly(step: Step, dtype: torch.dtype) -> Tensor:
    most = _most(dtype, step.dtype)
    return step.numbers().clamp(-most, most).to(dtype)


def _most(dtype: torch.dtype, wide: torch.dtype) -> float:
    return min(torch.finfo(dtype).max, torch.finfo(wide).max)


def _cast(loops: Any, reading: Reading, dtype: torch.dtype) -> tuple[Tensor, bool]:
    short = dtype in (torch.bfloat16, torch.float16)
    kinds = (np.int16, np.float32, np.float64)
    own = np.int16 if short else np.float64 if dtype == torch.float64 else np.float32
    room = tuple(np.empty(reading.columns if kind is own else 0, kind) for kind in kinds)
    most, half = _most(dtype, reading.dtype), dtype == torch.float16

    def work(*share: int) -> int:
        return cast(int, loops.cast(reading, most, half, *share, *room))

    finite = are_finite(max(in_shares(reading.bounds, work), default=0), reading.dtype)
    values = torch.from_numpy(room[kinds.index(own)])
    return values.view(dtype) if short else values, finite
