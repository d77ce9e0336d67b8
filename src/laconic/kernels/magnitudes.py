"""Largest magnitudes of segments or rows, and whether all numbers are finite."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.segmented import Reading, SegmentedInput, in_shares, reading_of
from laconic.kernels.steps import Step, dispatch_step


def largest_magnitude(step: Step) -> Tensor:
    """The largest magnitude of each row: (..., 1) in the accumulation dtype."""

    def plain() -> Tensor:
        return step.numbers().abs().amax(dim=-1, keepdim=True)

    def compiled(loops: Any) -> Tensor:
        return _largest(loops, reading_of(step)).reshape(*step.batch, 1)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.largest_magnitude(step))

    return dispatch_step("rows", step, compiled, plain, on_device)


def largest_magnitudes(inp: SegmentedInput) -> Tensor:
    """The largest magnitude of each segment: (S,) in the accumulation dtype; infinite or NaN where one is."""

    def plain() -> Tensor:
        largest = [step.numbers().abs().amax(dim=-1) for step in inp.steps()]
        return torch.stack(largest) if largest else torch.empty(0, dtype=inp.dtype)

    return dispatch("rows", lambda loops: _largest(loops, inp.reading()), plain)


def all_finite(inp: SegmentedInput) -> bool:
    """Whether no number is NaN or infinite, nor becomes so when the memory is subtracted.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 1), (1, 1), (1, 1), (0, 1))
        >>> all_finite(SegmentedInput.of_kept(torch.tensor([1.0, torch.nan]), table))
        False
    """
    return bool(largest_magnitudes(inp).isfinite().all())


def _largest(loops: Any, reading: Reading) -> Tensor:
    kind = reading.mask.dtype

    def work(*share: int) -> npt.NDArray[Any]:
        found = np.zeros(reading.segments, kind)
        loops.largest_of_each(reading, *share, found)
        return found

    found = [np.zeros(reading.segments, kind), *in_shares(reading.bounds, work)]
    return torch.from_numpy(np.max(found, axis=0)).view(reading.dtype)


def are_finite(bits: int, dtype: torch.dtype) -> bool:
    """Whether a largest magnitude of these bits is finite."""
    return bits < (0x7F800000 if dtype == torch.float32 else 0x7FF0000000000000)
