"""The senders: nothing remembered, what was not sent, what was sent.

A round is staged, then committed: :meth:`NodeSender.stage` makes the message and what the memory is to
become, and the memory itself changes with :meth:`NodeSender.commit` alone. What differs between methods is
a :class:`Rule`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.feedback._encoder import Encoder, checked
from laconic.feedback._state import snapshot, take_state
from laconic.kernels import squared_norm
from laconic.messages import Message
from laconic.nodes import choose, spread

Init = Literal["gradient", "bfloat16", "compressed", "zero"]

Move = Callable[[], Tensor | None]
"""Makes the memory of the next round, perhaps of this round's own storage."""


@dataclass(frozen=True)
class Rule:
    """What a method sends, and what it remembers of it.

    Args:
        remembers: the memory's name in state dicts; None for methods that remember nothing.
        stage: from encoder, memory, gradient, round and stepsize to the message and the move.
    """

    remembers: str | None
    stage: Callable[[Encoder, Tensor | None, Tensor, int, "float | Tensor | None"], tuple[Message, Move]]


class NodeSender:
    """A sender by a rule: a memory (..., d), and the round."""

    def __init__(self, encoder: Encoder, rule: Rule) -> None:
        """Start at round 0 without a memory."""
        self._encoder = encoder
        self._rule = rule
        self._move: Move | None = None
        self.round = 0
        self.memory: Tensor | None = None

    def stage(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message; round and memory stay as they are until :meth:`commit`."""
        self._move = None
        g = checked(gradient, self._encoder.layout, self.memory)
        message, self._move = self._rule.stage(self._encoder, self.memory, g, self.round, stepsize)
        return message

    def commit(self) -> None:
        """Remember what the staged message changes."""
        if self._move is None:
            raise RuntimeError("nothing is staged; call stage() first, or send()")
        self.memory = self._move()
        self._move = None
        self.round += 1

    def roll_back(self) -> None:
        """Forget what is staged."""
        self._move = None

    def send(
        self, gradient: Tensor, previous: Tensor | None = None, stepsize: float | Tensor | None = None
    ) -> Message:
        """This round's message, staged and committed."""
        message = self.stage(gradient, previous, stepsize)
        self.commit()
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory (..., d), under the rule's name for it."""
        state: dict[str, Any] = {"layout": self._encoder.layout.digest, "round": self.round}
        if self._rule.remembers is not None:
            state[self._rule.remembers] = snapshot(self.memory)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        name = self._rule.remembers
        self.round = take_state(state, self._encoder.layout, () if name is None else (name,))
        self.memory = None if name is None else snapshot(state[name])
        self._move = None


def _direct(
    encoder: Encoder,
    memory: Tensor | None,  # noqa: ARG001
    gradient: Tensor,
    round: int,
    stepsize: float | Tensor | None,  # noqa: ARG001
) -> tuple[Message, Move]:
    return encoder.encode(gradient, round), lambda: None


DIRECT = Rule(None, _direct)
"""Remembers nothing: m = C(g)."""


def _drain(
    encoder: Encoder,
    memory: Tensor | None,
    gradient: Tensor,
    round: int,
    stepsize: float | Tensor | None,
) -> tuple[Message, Move]:
    if stepsize is not None:
        gradient = _scaled(gradient, stepsize)
    residual = gradient.clone() if memory is None else memory + gradient
    message = encoder.encode(residual, round)

    def move() -> Tensor:
        message.add_to(residual, weight=-1.0)
        return residual

    return message, move


DRAIN = Rule("residual", _drain)
"""Remembers what was not sent (EF14): m = C(e + g), e <- e + g - m.

With a stepsize it is C(e + stepsize * g).
"""


def track(init: Init) -> Rule:
    """Remembers what was sent (EF21): m = C(g - h), h <- h + m; round 0 as ``init`` says."""

    def stage(
        encoder: Encoder,
        memory: Tensor | None,
        gradient: Tensor,
        round: int,
        stepsize: float | Tensor | None,  # noqa: ARG001
    ) -> tuple[Message, Move]:
        if memory is None:
            return _begin(encoder, init, gradient, round)
        message = encoder.encode_difference(gradient, memory, round)

        def move() -> Tensor:
            message.add_to(memory)
            return memory

        return message, move

    return Rule("memory", stage)


def track_or_replace(init: Init) -> Rule:
    """Remembers what was sent, and sends the better of two messages (EF21+).

    m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g. The choice
    is made for each node and segment, so that it cannot depend on how segments are grouped for sending;
    equally near, it is added. The theorem holds segment by segment, so it holds for the whole.
    """

    def stage(
        encoder: Encoder,
        memory: Tensor | None,
        gradient: Tensor,
        round: int,
        stepsize: float | Tensor | None,  # noqa: ARG001
    ) -> tuple[Message, Move]:
        if memory is None:
            message, move = _begin(encoder, init, gradient, round)
            better = torch.zeros(
                *gradient.shape[:-1], len(message.parts), dtype=torch.bool, device=gradient.device
            )
            return Message(message.parts, better, message.round, message.digest), move
        adding = encoder.encode_difference(gradient, memory, round)
        added = memory.clone()
        adding.add_to(added)
        replacing = encoder.encode(gradient, round)
        replaced = replacing.dense()
        better = _nearer(encoder, replaced, added, gradient)
        message = choose(better, replacing, adding)
        after = torch.where(spread(better, message), replaced, added, out=added)
        return Message(message.parts, better, message.round, message.digest), lambda: after

    return Rule("memory", stage)


def _nearer(encoder: Encoder, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Whether first is nearer to target than second, by segment: bool (..., segments)."""
    verdicts = []
    for segment in encoder.layout.segments:
        a, b, t = (vector[..., segment.offset : segment.end] for vector in (first, second, target))
        verdicts.append(squared_norm(a - t) < squared_norm(b - t))
    return torch.stack(verdicts, dim=-1)


def _begin(encoder: Encoder, init: Init, gradient: Tensor, round: int) -> tuple[Message, Move]:
    """How EF21 starts, as ``init`` says.

    The memory is what the message says, in the message's dtype, ``h <- fl(0 + v)``: both ends start from
    the same bits, also where the compressor narrows its numbers.
    """
    first = {
        "gradient": encoder.dense,
        "bfloat16": encoder.rounded,
        "compressed": encoder.encode,
        "zero": encoder.silent,
    }
    message = first[init](gradient, round)
    return message, message.dense


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
