"""Refusal to compress NaN and infinity, before they reach a memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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


_deferred: ContextVar[list[Tensor] | None] = ContextVar("deferred checks", default=None)


@contextmanager
def deferred_checks() -> Iterator[list[Tensor]]:
    """Inside, flags on a device are collected by :func:`require_all_finite`, so that the host does not wait.

    Where one of them is false, what was compressed meanwhile must neither be sent nor committed.

    Yields:
        The flags so far, a number each on the device, not 0 where what was read is finite.

    Example:
        >>> import laconic
        >>> with deferred_checks() as flags:
        ...     _ = laconic.TopK(1).compress(torch.tensor([3.0, -4.0]))
        >>> flags
        []
    """
    flags: list[Tensor] = []
    token = _deferred.set(flags)
    try:
        yield flags
    finally:
        _deferred.reset(token)


def require_all_finite(finite: bool | Tensor) -> None:
    """NotFiniteError unless all numbers that were read are finite; or later, see :func:`deferred_checks`.

    The caller may then go on with NaN and infinity: it must end, stay within bounds, and let a memory be put
    back, bit for bit.

    Args:
        finite: a flag; of numbers on a device a tensor of one number there.
    """
    flags = _deferred.get()
    if flags is not None and isinstance(finite, Tensor) and finite.device.type != "cpu":
        flags.append(finite.view(()))
    elif not finite:
        raise NotFiniteError(NOT_FINITE)


def finite_flag(numbers: Tensor) -> Tensor:
    """bool (): whether all of at least one number are finite; the largest magnitude is NaN where one is."""
    return numbers.abs().max() < math.inf


def require_finite_sums(sums: Tensor, inputs: SegmentedInput) -> None:
    """NotFiniteError unless all numbers are finite, given sums over each segment."""
    finite = finite_flag(sums)
    # A sum of huge float64 numbers may overflow where they do not.
    require_all_finite((bool(finite) or all_finite(inputs)) if inputs.dtype == torch.float64 else finite)


def _is_finite(target: Tensor, memory: Tensor | None) -> bool:
    return bool(torch.isfinite(target if memory is None else target - memory).all())
