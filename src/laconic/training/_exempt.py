"""Which parameters travel whole."""

from collections.abc import Callable

from torch import Tensor

Exempt = Callable[[str, Tensor], bool]
"""Called with a parameter's name and the parameter; True where it travels whole."""

SMALL = 512
"""Parameters with fewer numbers travel whole: their position and value lists would save next to nothing."""


def vectors_and_small(name: str, parameter: Tensor) -> bool:  # noqa: ARG001
    """Biases, gains and whatever else has at most one dimension, and tensors of fewer than 512 numbers.

    They are some per mille of a model and sensitive: a bias that waits for its turn is a shift of every
    output until then.

    Example:
        >>> import torch
        >>> vectors_and_small("bias", torch.zeros(4096)), vectors_and_small("weight", torch.zeros(64, 64))
        (True, False)
    """
    return parameter.dim() <= 1 or parameter.numel() < SMALL
