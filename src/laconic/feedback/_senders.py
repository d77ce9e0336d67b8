"""The senders: nothing remembered, what was not sent, what was sent.

A round is staged, then committed: :meth:`NodeSender.stage` makes the message, and what a sender remembers
changes for good with :meth:`NodeSender.commit` alone. What differs between methods is a :class:`Rule`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.feedback._encoder import Encoder, Staged, checked, widened
from laconic.feedback._state import snapshot, take_state
from laconic.kernels import squared_norm
from laconic.messages import Message, accumulation_dtype
from laconic.nodes import choose, spread

Init = Literal["gradient", "bfloat16", "compressed", "zero"]


@dataclass(frozen=True)
class Turn:
    """What a rule has before it in one round.

    Args:
        encoder: the compressor on its layout.
        memory: (..., d), or None in the first round.
        spare: room for another memory, which holds nothing of worth; or None.
        gradient: (..., d), perhaps narrower than the memory.
        round: the round.
        stepsize: for methods that remember steps.
    """

    encoder: Encoder
    memory: Tensor | None
    spare: Tensor | None
    gradient: Tensor
    round: int
    stepsize: float | Tensor | None

    def narrow(self) -> Tensor:
        """The gradient as it is, where sums with the memory have the memory's dtype; else as :meth:`wide`."""
        fits = self.memory is not None and accumulation_dtype(self.gradient.dtype) == self.memory.dtype
        return self.gradient if fits else self.wide()

    def wide(self) -> Tensor:
        """The gradient in the memory's dtype, at first in its own accumulation dtype."""
        return widened(self.gradient, self.memory)

    def encoded(self) -> Message:
        """The message of the gradient itself."""
        return self.encoder.encode(self.wide(), self.round)


@dataclass(frozen=True)
class Rule:
    """What a method sends, and what it remembers of it.

    Args:
        remembers: the memory's name in state dicts; None for methods that remember nothing.
        stage: makes the message, and says how the memory moves on.
    """

    remembers: str | None
    stage: Callable[[Turn], Staged]


class NodeSender:
    """A sender by a rule: a memory (..., d), and the round."""

    def __init__(self, encoder: Encoder, rule: Rule) -> None:
        """Start at round 0 without a memory."""
        self._encoder = encoder
        self._rule = rule
        self._staged: Staged | None = None
        self._spare: Tensor | None = None
        self.round = 0
        self.memory: Tensor | None = None

    def stage(
        self,
        gradient: Tensor,
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message; what is remembered stays as it is until :meth:`commit`.

        The memory's own numbers may move on with the reading that makes the message. They are put back by
        :meth:`roll_back`, by another stage, and in what :meth:`state_dict` returns before the commit.
        """
        self.roll_back()
        g = checked(gradient, self._encoder.layout, self.memory)
        turn = Turn(self._encoder, self.memory, self._spare, g, self.round, stepsize)
        self._staged = self._rule.stage(turn)
        return self._staged.message

    def commit(self) -> None:
        """Remember what the staged message changes."""
        if self._staged is None:
            raise RuntimeError("nothing is staged; call stage() first, or send()")
        before, self.memory = self.memory, self._staged.commit()
        if before is not self.memory:
            self._spare = before
        self._staged = None
        self.round += 1

    def roll_back(self) -> None:
        """Forget what is staged."""
        staged, self._staged = self._staged, None
        if staged is not None and self.memory is not None:
            staged.undo(self.memory)

    def send(
        self, gradient: Tensor, previous: Tensor | None = None, stepsize: float | Tensor | None = None
    ) -> Message:
        """This round's message, staged and committed."""
        message = self.stage(gradient, previous, stepsize)
        self.commit()
        return message

    def state_dict(self) -> dict[str, Any]:
        """The round and the memory (..., d), under the rule's name for it; as before what is staged."""
        state: dict[str, Any] = {"layout": self._encoder.layout.digest, "round": self.round}
        if self._rule.remembers is not None:
            memory = snapshot(self.memory)
            if memory is not None and self._staged is not None:
                self._staged.undo(memory)
            state[self._rule.remembers] = memory
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memory."""
        name = self._rule.remembers
        self.round = take_state(state, self._encoder.layout, () if name is None else (name,))
        self.memory = None if name is None else snapshot(state[name])
        self._staged = self._spare = None


DIRECT = Rule(None, lambda turn: Staged(turn.encoded(), lambda: None))
"""Remembers nothing: m = C(g)."""


def _drain(turn: Turn) -> Staged:
    gradient = turn.narrow() if turn.stepsize is None else _scaled(turn.wide(), turn.stepsize)
    # The sum goes where the memory before the last was: fresh room would take longer than the sum.
    residual = gradient.clone() if turn.memory is None else torch.add(turn.memory, gradient, out=turn.spare)
    staged = turn.encoder.move_(residual, turn.round)
    return Staged(staged.message, staged.commit)


DRAIN = Rule("residual", _drain)
"""Remembers what was not sent (EF14): m = C(e + g), e <- e + g - m.

With a stepsize it is C(e + stepsize * g).
"""


def track(init: Init) -> Rule:
    """Remembers what was sent (EF21): m = C(g - h), h <- h + m; round 0 as ``init`` says."""

    def stage(turn: Turn) -> Staged:
        if turn.memory is None:
            return _begin(turn, init)
        return turn.encoder.move_(turn.memory, turn.round, turn.narrow())

    return Rule("memory", stage)


def track_or_replace(init: Init) -> Rule:
    """Remembers what was sent, and sends the better of two messages (EF21+).

    m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g. The choice
    is made for each node and segment, so that it cannot depend on how segments are grouped for sending;
    equally near, it is added. The theorem holds segment by segment, so it holds for the whole.
    """

    def stage(turn: Turn) -> Staged:
        encoder, memory, gradient = turn.encoder, turn.memory, turn.wide()
        if memory is None:
            first = _begin(turn, init)
            message = first.message
            better = torch.zeros(
                *gradient.shape[:-1], len(message.parts), dtype=torch.bool, device=gradient.device
            )
            return replace(first, message=replace(message, replaces=better))
        adding = encoder.encode_difference(gradient, memory, turn.round)
        added = memory.clone() if turn.spare is None else turn.spare.copy_(memory)
        adding.add_to(added)
        replacing = turn.encoded()
        replaced = replacing.dense()
        better = _nearer(encoder, replaced, added, gradient)
        message = replace(choose(better, replacing, adding), replaces=better)
        after = torch.where(spread(better, message), replaced, added, out=added)
        return Staged(message, lambda: after)

    return Rule("memory", stage)


def _nearer(encoder: Encoder, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Whether first is nearer to target than second, by segment: bool (..., segments)."""
    verdicts = []
    for segment in encoder.layout.segments:
        a, b, t = (vector[..., segment.offset : segment.end] for vector in (first, second, target))
        verdicts.append(squared_norm(a - t) < squared_norm(b - t))
    return torch.stack(verdicts, dim=-1)


def _begin(turn: Turn, init: Init) -> Staged:
    """How EF21 starts, as ``init`` says.

    The memory is what the message says, in the message's dtype, ``h <- fl(0 + v)``: both ends start from
    the same bits, also where the compressor narrows its numbers.
    """
    encoder = turn.encoder
    first = {
        "gradient": encoder.dense,
        "bfloat16": encoder.rounded,
        "compressed": encoder.encode,
        "zero": encoder.silent,
    }
    message = first[init](turn.wide(), turn.round)
    return Staged(message, message.dense)


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
