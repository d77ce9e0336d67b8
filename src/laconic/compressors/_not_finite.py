"""Refusal to compress NaN and infinity, before they reach a memory."""

import torch
from torch import Tensor

from laconic.kernels import SegmentedInput, all_finite

_CHUNK = 1 << 18
"""Numbers checked together: few enough to stay in cache, so that nothing of length d is made."""

NOT_FINITE = (
    "the gradient holds NaN or infinity, or becomes infinite together with the memory or the "
    "stepsize; skip this step on every node (the memory is unchanged)"
)


class NotFiniteError(ValueError):
    """What is to be compressed holds NaN or infinity, which would stay in a memory for ever."""


def require_finite(target: Tensor, memory: Tensor | None = None) -> None:
    """Refuse to compress what would stay in a memory for ever.

    Asked of what is compressed rather than of the gradient: a gradient and a memory can be finite, and
    their difference not.

    Args:
        target: (..., d).
        memory: (..., d), to be subtracted first.

    Raises:
        NotFiniteError: for NaN or infinity.
    """
    if target.dim() == 1 and target.device.type == "cpu":
        finite = all(
            _is_finite(target[i : i + _CHUNK], None if memory is None else memory[i : i + _CHUNK])
            for i in range(0, target.numel(), _CHUNK)
        )
    else:
        finite = _is_finite(target, memory)
    if not finite:
        raise NotFiniteError(NOT_FINITE)


def require_all_finite(finite: bool) -> None:
    """NotFiniteError unless all numbers that were read are finite."""
    if not finite:
        raise NotFiniteError(NOT_FINITE)


def require_finite_sums(sums: Tensor, inputs: SegmentedInput) -> None:
    """NotFiniteError unless all numbers are finite, given sums over each segment."""
    # A sum of huge float64 numbers may overflow where they do not.
    require_all_finite(bool(torch.isfinite(sums).all()) or all_finite(inputs))


def _is_finite(target: Tensor, memory: Tensor | None) -> bool:
    return bool(torch.isfinite(target if memory is None else target - memory).all())
