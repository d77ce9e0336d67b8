"""Checking what is loaded into senders and receivers."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from laconic.layout import Layout


def take_state(state: dict[str, Any], layout: Layout, names: Iterable[str]) -> int:
    """The round in a state dict, once its keys and its layout are known to fit.

    Raises:
        ValueError: for missing or unknown keys, or another layout.
    """
    expected = {"layout", "round", *names}
    if set(state) != expected:
        raise ValueError(
            f"the state has the keys {sorted(state)}, but this method's are {sorted(expected)}; "
            "load it into the method that saved it"
        )
    if state["layout"] != layout.digest:
        raise ValueError(
            "the state was saved for another layout (other parameters, shapes or rules); "
            "load it into a model with the same parameters"
        )
    return int(state["round"])


def snapshot(value: Tensor | None) -> Tensor | None:
    """A copy, so that neither a memory that moves on nor a state dict changes the other."""
    return None if value is None else value.detach().clone()
