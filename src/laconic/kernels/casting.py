"""Numbers rounded to a narrower dtype."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.magnitudes import are_finite
from laconic.kernels.reference.casting import cast_reference, largest_cast
from laconic.kernels.reference.magnitudes import all_finite_reference
from laconic.kernels.segmented import Reading, SegmentedInput, in_shares


def cast_segments(inp: SegmentedInput, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """The numbers in another dtype, to the nearest and ties to even; what is too large becomes its largest.

    Args:
        inp: the segments.
        dtype: bfloat16, float16, float32, or the accumulation dtype.

    Returns:
        (K,), and whether all numbers were finite.
    """

    def reference() -> tuple[Tensor, bool]:
        values = inp.concatenated(lambda x: cast_reference(x, dtype), dtype)
        return values, all_finite_reference(inp.rows())

    return dispatch("casting", lambda cpu: _cast(cpu, inp.reading(), dtype), reference)


def _cast(cpu: Any, reading: Reading, dtype: torch.dtype) -> tuple[Tensor, bool]:
    short = dtype in (torch.bfloat16, torch.float16)
    kinds = (np.int16, np.float32, np.float64)
    own = np.int16 if short else np.float64 if dtype == torch.float64 else np.float32
    room = tuple(np.empty(reading.columns if kind is own else 0, kind) for kind in kinds)
    most, half = largest_cast(reading.dtype, dtype), dtype == torch.float16

    def work(*share: int) -> int:
        return cast(int, cpu.cast(reading, most, half, *share, *room))

    finite = are_finite(max(in_shares(reading.bounds, work), default=0), reading.dtype)
    values = torch.from_numpy(room[kinds.index(own)])
    return values.view(dtype) if short else values, finite
