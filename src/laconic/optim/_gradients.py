"""One node's gradients in the accumulation dtype; and the parameters' update."""

import torch
from torch import Tensor

from laconic.formats import accumulation_dtype


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
