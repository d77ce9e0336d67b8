"""What a node does alone: its gradient, unscaled and clipped, in the dtype that sums are made in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.kernels import squared_norm
from laconic.messages import accumulation_dtype

_STRETCH = 2**16


def check_parameters(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse parameters that are not real floating-point tensors.

    Raises:
        TypeError: for complex, integer or sparse parameters.
    """
    for group in groups:
        for parameter in group["params"]:
            if not parameter.is_floating_point() or parameter.layout != torch.strided:
                raise TypeError(
                    f"parameters must be dense and real, got a {parameter.layout} tensor of "
                    f"{parameter.dtype}; view_as_real() makes a complex parameter real"
                )


def check_setting(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a setting outside [low, high).

    Raises:
        ValueError: naming it.
    """
    if not low <= float(value) < high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {float(value):g}")


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is not positive.

    Raises:
        ValueError: naming it.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def clip_factors(groups: Sequence[Mapping[str, Any]], grad_scale: float = 1.0) -> list[float]:
    """For each group what its gradients are multiplied by: 1 / grad_scale, and less where they are too long.

    Groups with the same ``clip`` share one norm, over all their parameters; so by default the norm is the
    whole gradient's. The norm is a canonical sum in float64, alike on any number of threads.
    """
    squares: dict[float, float] = {}
    for group in groups:
        clip = group["clip"]
        if clip is not None:
            gradients = [dense(p.grad).reshape(-1) for p in group["params"] if p.grad is not None]
            squares[clip] = squares.get(clip, 0.0) + _square(gradients)
    factors = []
    for group in groups:
        clip, factor = group["clip"], 1.0 / grad_scale
        if clip is not None:
            length = math.sqrt(squares[clip]) / grad_scale
            factor *= min(1.0, clip / length) if length > 0 else 1.0
        factors.append(factor)
    return factors


def _square(gradients: Sequence[Tensor]) -> float:
    """The squared norm of all together, summed in stretches: one sum for many small tensors."""
    total, waiting, count = 0.0, [], 0
    for number, gradient in enumerate(gradients, start=1):
        waiting.append(gradient)
        count += gradient.numel()
        if count >= _STRETCH or number == len(gradients):
            total += float(squared_norm(torch.cat(waiting)))
            waiting, count = [], 0
    return total


def local_gradient(parameter: Tensor, factor: float) -> Tensor:
    """The gradient times factor in the accumulation dtype, zeros where there is none: a new tensor."""
    dtype = accumulation_dtype(parameter.dtype)
    if parameter.grad is None:
        return torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)
    return dense(parameter.grad).to(dtype) * factor


def dense(gradient: Tensor) -> Tensor:
    """The gradient, if it is dense.

    Raises:
        TypeError: for a sparse gradient.
    """
    if gradient.layout != torch.strided:
        raise TypeError(f"a gradient is {gradient.layout}: build the embedding with sparse=False")
    return gradient


def apply_(parameter: Tensor, step: Tensor, decay: float) -> None:
    """``parameter <- parameter * decay - step``, in the step's dtype, rounded to its own at the end."""
    moved = parameter.to(step.dtype)
    if decay != 1.0:
        moved = moved * decay
    parameter.copy_(moved - step)


def loss_scale(optimizer: Any) -> float:
    """The scale that a ``GradScaler`` has left on the gradients; 1 where there is none or it was removed."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
