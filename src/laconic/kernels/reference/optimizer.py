"""Optimiser arithmetic on segments, in plain PyTorch: AdamW, momentum, and the parameters' step."""

import torch
from torch import Tensor

from laconic.kernels.reference.sums import square_root
from laconic.kernels.tables import Integers, Vectors


def normalized(gradient: Tensor, mean: Tensor | None, square: Tensor, row: Tensor) -> Tensor:
    """AdamW's update of one segment, times the rate; NaN where the length is not finite.

    Args:
        gradient: in the accumulation dtype, times the factor.
        mean: the first moment; None where beta_1 is 0.
        square: the second moment.
        row: as a row of the settings of :func:`laconic.kernels.adamw_update`, in the accumulation dtype.
    """
    _, beta1, rest1, whole1, beta2, rest2, whole2, eps, rate = row
    second = square * beta2 + gradient * gradient * rest2
    length = square_root((second / whole2).to(torch.float64)).to(gradient.dtype) + eps
    if mean is not None:
        gradient = (mean * beta1 + gradient * rest1) / whole1
    update: Tensor = torch.where(length.isfinite(), gradient / length, torch.nan) * rate
    return update


def adamw_update_reference(
    out: Vectors, gradient: Vectors, first: Vectors, second: Vectors, settings: Tensor, numels: Integers
) -> None:
    """The definition of :func:`laconic.kernels.adamw_update`."""
    for s, numel in enumerate(numels.tolist()):
        row = settings[s]
        x = gradient.segment(s, numel).to(out.dtype) * row[0]
        mean = first.segment(s, numel) if row[1] > 0 else None
        out.segment(s, numel).copy_(normalized(x, mean, second.segment(s, numel), row))


def adamw_advance_reference(
    first: Vectors,
    second: Vectors,
    gradient: Vectors,
    settings: Tensor,
    numels: Integers,
    after: Vectors,
) -> None:
    """The definition of :func:`laconic.kernels.adamw_advance`."""
    for s, numel in enumerate(numels.tolist()):
        factor, beta1, rest1, _, beta2, rest2, *_ = settings[s]
        x = gradient.segment(s, numel).to(second.dtype) * factor
        square = second.segment(s, numel)
        after.segment(s, numel).copy_(square * beta2 + x * x * rest2)
        if beta1 > 0:
            mean = first.segment(s, numel)
            mean.copy_(mean * beta1 + x * rest1)


def momentum_update_reference(
    out: Vectors, gradient: Vectors, buffer: Vectors, settings: Tensor, numels: Integers
) -> None:
    """The definition of :func:`laconic.kernels.momentum_update`."""
    for s, numel in enumerate(numels.tolist()):
        factor, mu, rate = settings[s]
        x = gradient.segment(s, numel).to(out.dtype) * factor
        out.segment(s, numel).copy_((buffer.segment(s, numel) * mu + x) * rate)


def scale_reference(out: Vectors, x: Vectors, settings: Tensor, numels: Integers) -> None:
    """The definition of :func:`laconic.kernels.scale_segments`."""
    for s, numel in enumerate(numels.tolist()):
        out.segment(s, numel).copy_(x.segment(s, numel).to(out.dtype) * settings[s, 0] * settings[s, 1])


def apply_reference(parameters: Vectors, steps: Vectors, settings: Tensor, numels: Integers) -> None:
    """The definition of :func:`laconic.kernels.apply_steps`."""
    for s, numel in enumerate(numels.tolist()):
        decay, rate = settings[s]
        own = parameters.segment(s, numel)
        own.copy_(own.to(steps.dtype) * decay - steps.segment(s, numel) * rate)
