"""The senders: nothing remembered, what was not sent, what was sent."""

from typing import Any, Literal

import torch
from torch import Tensor

from laconic.feedback._encoder import Encoder, checked
from laconic.feedback._state import load_tensor, take_state
from laconic.kernels import squared_norm
from laconic.messages import Message, choose

Init = Literal["gradient", "compressed", "zero"]


class DirectSender:
    """Remembers nothing: m = C(g)."""

    def __init__(self, encoder: Encoder) -> None:
        """Start at round 0."""
        self._encoder = encoder
        self.round = 0

    def send(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,  # noqa: ARG002
    ) -> Message:
        """C(gradient)."""
        g = checked(gradient, self._encoder.layout, None)
        message = self._encoder.encode(g, self.round)
        self.round += 1
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round."""
        return {"layout": self._encoder.layout.digest, "round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the round."""
        self.round = take_state(state, self._encoder.layout, ())


class DrainSender:
    """Remembers what was not sent (EF14): m = C(e + g), e <- e + g - m."""

    def __init__(self, encoder: Encoder) -> None:
        """Start at round 0 with e = 0."""
        self._encoder = encoder
        self.round = 0
        self.residual: Tensor | None = None

    def send(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """C(e + stepsize * gradient), or C(e + gradient) without a stepsize."""
        g = checked(gradient, self._encoder.layout, self.residual)
        if stepsize is not None:
            g = g * stepsize
        residual = g.clone() if self.residual is None else self.residual + g
        message = self._encoder.drain_(residual, self.round)
        self.residual = residual
        self.round += 1
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the residual (..., d)."""
        return {"layout": self._encoder.layout.digest, "round": self.round, "residual": self.residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and residual."""
        self.round = take_state(state, self._encoder.layout, ("residual",))
        self.residual = load_tensor(state["residual"])


class TrackSender:
    """Remembers what was sent (EF21): m = C(g - h), h <- h + m."""

    def __init__(self, encoder: Encoder, init: Init) -> None:
        """Start at round 0."""
        self._encoder = encoder
        self._init = init
        self.round = 0
        self.memory: Tensor | None = None

    def send(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,  # noqa: ARG002
    ) -> Message:
        """C(gradient - h); in round 0 the gradient itself, or nothing, as ``init`` says."""
        g = checked(gradient, self._encoder.layout, self.memory)
        message, self.memory = begin(self._encoder, self._init, g, self.round, self.memory)
        if message is None:
            message = self._encoder.track_(self.memory, g, self.round)
        self.round += 1
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory h (..., d)."""
        return {"layout": self._encoder.layout.digest, "round": self.round, "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        self.round = take_state(state, self._encoder.layout, ("memory",))
        self.memory = load_tensor(state["memory"])


class BetterSender:
    """Remembers what was sent, and sends the better of two messages (EF21+).

    m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g. The choice
    is made node by node over the whole vector; equally near, it is added.
    """

    def __init__(self, encoder: Encoder, init: Init) -> None:
        """Start at round 0."""
        self._encoder = encoder
        self._init = init
        self.round = 0
        self.memory: Tensor | None = None

    def send(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,  # noqa: ARG002
    ) -> Message:
        """The better message, with its flag ``replaces``; round 0 as for EF21."""
        g = checked(gradient, self._encoder.layout, self.memory)
        message, memory = begin(self._encoder, self._init, g, self.round, self.memory)
        if message is None:
            added = memory.clone()
            adding = self._encoder.track_(added, g, self.round)
            replacing = self._encoder.encode(g, self.round)
            replaced = replacing.dense()
            better = squared_norm(replaced - g) < squared_norm(added - g)
            message = choose(better, replacing, adding)
            memory = torch.where(better.unsqueeze(-1), replaced, added)
        else:
            better = torch.zeros(g.shape[:-1], dtype=torch.bool, device=g.device)
        self.memory = memory
        self.round += 1
        return Message(message.parts, replaces=better, round=message.round, digest=message.digest)

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory h (..., d)."""
        return {"layout": self._encoder.layout.digest, "round": self.round, "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        self.round = take_state(state, self._encoder.layout, ("memory",))
        self.memory = load_tensor(state["memory"])


def begin(
    encoder: Encoder, init: Init, gradient: Tensor, round: int, memory: Tensor | None
) -> tuple[Message | None, Tensor]:
    """How EF21's memory starts: the message of round 0 where ``init`` fixes it, and the memory.

    ``h <- fl(0 + v)`` also at the start, so that both ends hold the same bits.
    """
    if memory is None:
        memory = torch.zeros_like(gradient)
    if round > 0 or init == "compressed":
        return None, memory
    if init == "zero":
        return encoder.silent(gradient, round), memory
    message = encoder.dense(gradient, round)
    message.add_to(memory)
    return message, memory
