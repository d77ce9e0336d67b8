"""How much of what a node meant to say its listeners do not know."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from laconic.messages import Message


def unsaid(state: Mapping[str, Any], message: Message, gradient: Tensor) -> tuple[float, float]:
    """The squared norms of what is not known and of the whole, after a message.

    The whole is the gradient, or its momentum, for methods that track it and those that remember nothing;
    for EF14 it is what waited to be sent.

    Args:
        state: the sender's ``state_dict()`` after the message.
        message: what it sent.
        gradient: (d,) what it was given.

    Example:
        >>> import torch, laconic
        >>> sender, gradient = laconic.EF14(laconic.TopK(1)).sender(2), torch.tensor([3.0, 4.0])
        >>> message = sender.send(gradient)
        >>> unsaid(sender.state_dict(), message, gradient)
        (9.0, 25.0)
    """
    if state.get("residual") is not None:
        missing = state["residual"]
        whole = missing + message.dense()
    elif state.get("memory") is not None:
        estimate = state.get("estimate")
        whole = gradient if estimate is None else estimate
        missing = whole - state["memory"]
    else:
        whole = gradient
        missing = whole - message.dense()
    return float(missing.double().square().sum()), float(whole.double().square().sum())
