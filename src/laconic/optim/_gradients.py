"""One node's gradients in the accumulation dtype; and the parameters' update."""

import math

import torch
from torch import Tensor

from laconic.formats import accumulation_dtype
from laconic.session import squared_norms_of


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


def all_finite(gradients: list[Tensor]) -> bool:
    """Whether every number of every gradient is finite."""
    first = gradients[0]
    alike = all([g.dtype == first.dtype and g.device == first.device for g in gradients])  # noqa: C419
    if alike and first.dtype == torch.float32 and first.device.type == "cpu":
        # Twelve times as fast as PyTorch's largest magnitude; squares of float32 fit in float64.
        norms = squared_norms_of(gradients, tuple(g.numel() for g in gradients))
    else:
        norms = [float(norm) for norm in torch._foreach_norm(gradients, math.inf)]
    return all(map(math.isfinite, norms))
