"""The senders: nothing remembered, what was not sent, what was sent."""

from typing import Any, Literal

import torch
from torch import Tensor

from laconic.feedback._encoder import Encoder, checked, require_finite
from laconic.feedback._state import snapshot, take_state
from laconic.kernels import squared_norm
from laconic.messages import Message, choose, spread

Init = Literal["gradient", "bfloat16", "compressed", "zero"]


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
        require_finite(g)
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
            g = _scaled(g, stepsize)
        residual = g.clone() if self.residual is None else self.residual + g
        require_finite(residual)
        message = self._encoder.drain_(residual, self.round)
        self.residual = residual
        self.round += 1
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the residual (..., d)."""
        return {
            "layout": self._encoder.layout.digest,
            "round": self.round,
            "residual": snapshot(self.residual),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and residual."""
        self.round = take_state(state, self._encoder.layout, ("residual",))
        self.residual = snapshot(state["residual"])


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
        if self.memory is None:
            message, self.memory = begin(self._encoder, self._init, g, self.round)
        else:
            require_finite(g - self.memory)
            message = self._encoder.track_(self.memory, g, self.round)
        self.round += 1
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory h (..., d)."""
        return {"layout": self._encoder.layout.digest, "round": self.round, "memory": snapshot(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        self.round = take_state(state, self._encoder.layout, ("memory",))
        self.memory = snapshot(state["memory"])


class BetterSender:
    """Remembers what was sent, and sends the better of two messages (EF21+).

    m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g. The choice
    is made for each node and segment, so that it cannot depend on how segments are grouped for sending;
    equally near, it is added. The theorem holds segment by segment, so it holds for the whole.
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
        if self.memory is None:
            message, memory = begin(self._encoder, self._init, g, self.round)
            better = torch.zeros(*g.shape[:-1], len(message.parts), dtype=torch.bool, device=g.device)
        else:
            require_finite(g - self.memory)
            added = self.memory.clone()
            adding = self._encoder.track_(added, g, self.round)
            replacing = self._encoder.encode(g, self.round)
            replaced = replacing.dense()
            better = self._nearer(replaced, added, g)
            message = choose(better, replacing, adding)
            memory = torch.where(spread(better, message), replaced, added)
        self.memory = memory
        self.round += 1
        return Message(message.parts, replaces=better, round=message.round, digest=message.digest)

    def _nearer(self, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
        """Whether first is nearer to target than second, by segment: bool (..., segments)."""
        verdicts = []
        for segment in self._encoder.layout.segments:
            a, b, t = (vector[..., segment.offset : segment.end] for vector in (first, second, target))
            verdicts.append(squared_norm(a - t) < squared_norm(b - t))
        return torch.stack(verdicts, dim=-1)

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory h (..., d)."""
        return {"layout": self._encoder.layout.digest, "round": self.round, "memory": snapshot(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        self.round = take_state(state, self._encoder.layout, ("memory",))
        self.memory = snapshot(state["memory"])


def begin(encoder: Encoder, init: Init, gradient: Tensor, round: int) -> tuple[Message, Tensor]:
    """How EF21 starts, as ``init`` says: its first message, and its memory.

    The memory is what the message says, in the message's dtype, ``h <- fl(0 + v)``: both ends start from
    the same bits, also where the compressor narrows its numbers.
    """
    require_finite(gradient)
    first = {
        "gradient": encoder.dense,
        "bfloat16": encoder.rounded,
        "compressed": encoder.encode,
        "zero": encoder.silent,
    }
    message = first[init](gradient, round)
    return message, message.dense()


def _scaled(gradient: Tensor, stepsize: float | Tensor) -> Tensor:
    """``stepsize * gradient`` in the gradient's dtype and shape."""
    if not isinstance(stepsize, Tensor):
        return gradient * stepsize
    scaled = gradient * stepsize.detach().to(gradient.dtype)
    if scaled.shape != gradient.shape:
        raise ValueError(
            f"the stepsize has shape {tuple(stepsize.shape)}, which does not broadcast to "
            f"{(*gradient.shape[:-1], 1)}, the gradient's leading dimensions and 1"
        )
    return scaled
