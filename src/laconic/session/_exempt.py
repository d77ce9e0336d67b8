"""What parameters are called, and which travel whole."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from laconic.layout import Layout

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


def layout_with(parameters: Mapping[str, Tensor], exempt: Exempt, exact: bool) -> Layout:
    """A segment for each parameter; exempt ones travel in bfloat16, or exactly if they are float64.

    Args:
        parameters: by name.
        exempt: which travel whole.
        exact: whether all of these travel exactly.
    """
    chosen = [name for name, parameter in parameters.items() if exempt(name, parameter)]
    whole = {name for name in chosen if exact or parameters[name].dtype == torch.float64}
    return Layout.of(parameters, exact=whole, bfloat16=[name for name in chosen if name not in whole])


def plain_name(name: str) -> str:
    """The name without what ``torch.compile`` puts into it, so that a checkpoint fits with and without it.

    Example:
        >>> plain_name("_orig_mod.layer.weight")
        'layer.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
