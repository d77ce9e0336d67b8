"""Largest magnitudes of segments or rows, and whether all numbers are finite."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.reference.magnitudes import largest_magnitude_reference
from laconic.kernels.segmented import Reading, SegmentedInput, dispatch_rows, in_shares, reading_of


def largest_magnitude(x: Tensor) -> Tensor:
    """The largest magnitude of each row: (..., d) to (..., 1) in the accumulation dtype."""
    return dispatch_rows(
        "rows",
        x,
        lambda cpu: _largest(cpu, reading_of(x)).reshape(*x.shape[:-1], 1),
        lambda: largest_magnitude_reference(x),
        lambda gpu: gpu.largest_magnitude(x),
    )


def largest_magnitudes(inp: SegmentedInput) -> Tensor:
    """The largest magnitude of each segment: (S,) in the accumulation dtype; infinite or NaN where one is."""
    return dispatch(
        "rows",
        lambda cpu: _largest(cpu, inp.reading()),
        lambda: inp.concatenated(largest_magnitude_reference, inp.dtype),
        tensor=inp.like,
    )


def all_finite(inp: SegmentedInput) -> bool:
    """Whether no number is NaN or infinite, nor becomes so when the memory is subtracted.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 1), (1, 1), (1, 1), (0, 1))
        >>> all_finite(SegmentedInput.of_kept(torch.tensor([1.0, torch.nan]), table))
        False
    """
    return bool(largest_magnitudes(inp).isfinite().all())


def _largest(cpu: Any, reading: Reading) -> Tensor:
    kind = reading.mask.dtype

    def work(*share: int) -> npt.NDArray[Any]:
        found = np.zeros(reading.segments, kind)
        cpu.largest_of_each(reading, *reading.room(), *share, found)
        return found

    found = [np.zeros(reading.segments, kind), *in_shares(reading.bounds, work)]
    return torch.from_numpy(np.max(found, axis=0)).view(reading.dtype)


def are_finite(bits: int, dtype: torch.dtype) -> bool:
    """Whether a largest magnitude of these bits is finite."""
    return bits < (0x7F800000 if dtype == torch.float32 else 0x7FF0000000000000)
