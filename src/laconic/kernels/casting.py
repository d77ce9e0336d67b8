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

_SEEN_AS: dict[torch.dtype, type[np.generic]] = {
    torch.bfloat16: np.int16,
    torch.float16: np.uint16,
    torch.float32: np.float32,
    torch.float64: np.float64,
}


def cast_segments(inp: SegmentedInput, dtype: torch.dtype) -> tuple[Tensor, bool | Tensor]:
    """The numbers in another dtype, to the nearest and ties to even; what is too large becomes its largest.

    Args:
        inp: the segments.
        dtype: bfloat16, float16, float32, or the accumulation dtype.

    Returns:
        (K,), and whether all numbers were finite; of those on a device int32 (1,) there, 1 or 0.
    """

    def reference() -> tuple[Tensor, bool]:
        values = inp.concatenated(lambda x: cast_reference(x, dtype), dtype)
        return values, all_finite_reference(inp.rows())

    return dispatch(
        "casting",
        lambda cpu: _cast(cpu, inp.reading(), dtype),
        reference,
        gpu=lambda gpu: gpu.cast_segments(inp.x, inp.memory, inp.numels, dtype),
        tensor=inp.like,
    )


def _cast(cpu: Any, reading: Reading, dtype: torch.dtype) -> tuple[Tensor, bool]:
    out, most = np.empty(reading.columns, _SEEN_AS[dtype]), largest_cast(reading.dtype, dtype)

    def work(*share: int) -> int:
        return cast(int, cpu.cast(reading, *reading.room(), most, *share, out))

    finite = are_finite(max(in_shares(reading.bounds, work), default=0), reading.dtype)
    return torch.from_numpy(out).view(dtype), finite
