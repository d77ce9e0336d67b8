"""One node's gradients: unscaled, clipped, in the accumulation dtype; and the parameters' update."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.formats import accumulation_dtype
from laconic.session import TrainedParameters, clip_factor, squared_norms_of


def gradient_factors(
    groups: Sequence[Mapping[str, Any]], parameters: TrainedParameters, grad_scale: float = 1.0
) -> list[float]:
    """For each group what its gradients are multiplied by: 1 / grad_scale, and less where they are clipped.

    Groups with the same ``clip`` share one norm over all their parameters, so by default it is the whole
    gradient's.
    """
    if all(group["clip"] is None for group in groups):
        return [1.0 / grad_scale] * len(groups)
    squares = _squares(parameters)
    by_clip: dict[float, set[Tensor]] = {}
    for group in groups:
        by_clip.setdefault(group["clip"], set()).update(group["params"])
    factors = {
        clip: clip_factor([s for p, s in squares.items() if p in members], clip, grad_scale)
        for clip, members in by_clip.items()
        if clip is not None
    }
    return [factors.get(group["clip"], 1.0) / grad_scale for group in groups]


def _squares(parameters: TrainedParameters) -> dict[Tensor, float]:
    """The squared norm of each gradient that is there, by parameter, in the layout's order."""
    by_kind: dict[tuple[torch.dtype, torch.device], dict[Tensor, Tensor]] = {}
    for parameter in parameters.by_name.values():
        gradient = parameter.grad
        if gradient is not None:
            if gradient.layout != torch.strided:
                dense(gradient)
            by_kind.setdefault((gradient.dtype, gradient.device), {})[parameter] = gradient
    found: dict[Tensor, float] = {}
    for members in by_kind.values():
        numels = tuple([p.numel() for p in members])
        found |= zip(members, squared_norms_of(list(members.values()), numels), strict=True)
    return {p: found[p] for p in parameters.by_name.values() if p in found}


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
