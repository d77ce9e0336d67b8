"""The sender of a node, and the rules of what it sends and remembers.

A round is staged, then committed: :meth:`NodeSender.stage` makes the message, and what a sender remembers
changes for good with :meth:`NodeSender.commit` alone. What differs between methods is a :class:`SenderRule`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.feedback._encoder import Content, Encoder
from laconic.feedback._estimators import Estimator
from laconic.feedback._memories import Memories, take_round
from laconic.formats import accumulation_dtype
from laconic.kernels import squared_norm
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout
from laconic.messages import Message, choose, spread

Init = Literal["gradient", "bfloat16", "compressed", "zero"]
_FIRST: Mapping[Init, Content] = {
    "gradient": "dense",
    "bfloat16": "rounded",
    "compressed": "compressed",
    "zero": "silent",
}


def first_content(init: Init) -> Content:
    """What the first message of a method that tracks holds."""
    return _FIRST[init]


@dataclass(frozen=True)
class RoundInputs:
    """What a rule has before it in one round.

    Args:
        encoder: the compressor on its layout.
        memories: by name, each (..., d).
        gradient: the vector, perhaps narrower than the memories.
        round: the round.
        stepsize: for methods that remember steps.
    """

    encoder: Encoder
    memories: Memories
    gradient: SegmentedVector
    round: int
    stepsize: float | Tensor | None

    def wide(self) -> SegmentedVector:
        """The gradient in its accumulation dtype, or that of the memories."""
        dtype = accumulation_dtype(self.gradient.like.dtype)
        for memory in self.memories.values():
            dtype = memory.dtype
        return self.gradient.widened(dtype)

    def narrow(self) -> SegmentedVector:
        """The gradient as it is, where its sums with a memory have the memory's dtype; else widened."""
        dtype = accumulation_dtype(self.gradient.like.dtype)
        fits = all(memory.dtype == dtype for memory in self.memories.values())
        return self.gradient if fits else self.wide()


@dataclass(frozen=True)
class PendingUpdate:
    """A round that has not been committed.

    Args:
        message: what is sent.
        commit: lets the memories be those of the next round.
        undo: puts back, in memories or copies of them, what has already changed.
    """

    message: Message
    commit: Callable[[Memories], None] = lambda _: None
    undo: Callable[[Mapping[str, Tensor]], None] = lambda _: None


ErrorRule = Callable[[Mapping[str, Tensor], Message, Tensor], tuple[Tensor, Tensor]]
"""From the memories after a message, the message and the gradient: what listeners miss, and of what."""


@dataclass(frozen=True)
class SenderRule:
    """What a method sends, and what it remembers of it.

    Args:
        memories: their names in state dicts.
        stage: makes the message, and says how the memories move on.
        error: what listeners do not know after a message, and the whole of which it is a part.
    """

    memories: tuple[str, ...]
    stage: Callable[[RoundInputs], PendingUpdate]
    error: ErrorRule


class NodeSender:
    """A sender by a rule, perhaps behind an estimator: memories (..., d), and the round.

    Args:
        encoder: the compressor on its layout.
        rule: what is sent and remembered.
        like: the layout, or a tensor of the vectors' shape, dtype and device.
        dtype: of the vectors, where ``like`` is a layout.
        estimator: what turns gradients into what is sent; its estimate is one more memory.
    """

    def __init__(
        self,
        encoder: Encoder,
        rule: SenderRule,
        like: Layout | Tensor | int,
        dtype: torch.dtype = torch.float32,
        estimator: Estimator | None = None,
    ) -> None:
        """Start at round 0 with memories of zeros."""
        self._encoder = encoder
        self._rule = rule
        self._estimator = estimator
        self._staged: PendingUpdate | None = None
        names = rule.memories if estimator is None else (*rule.memories, "estimate")
        self.round = 0
        self.memories = Memories.like(names, like, dtype)

    def stage(
        self,
        gradient: Tensor | Sequence[Tensor],
        previous: Tensor | None = None,  # noqa: ARG002
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message; what is remembered stays as it is until :meth:`commit`.

        The memories' own numbers may move on with the reading that makes the message. They are put back by
        :meth:`roll_back`, by another stage, and in what :meth:`state_dict` returns before the commit.
        """
        self.roll_back()
        vector = self._checked(gradient)
        inputs = RoundInputs(self._encoder, self.memories, vector, self.round, stepsize)
        if self._estimator is None:
            self._staged = self._rule.stage(inputs)
        else:
            self._staged = self._behind_estimator(inputs, self._estimator)
        return self._staged.message

    def _behind_estimator(self, inputs: RoundInputs, estimator: Estimator) -> PendingUpdate:
        last = self.memories["estimate"] if self.round else None
        estimate = estimator(last, inputs.wide().flattened())
        staged = self._rule.stage(replace(inputs, gradient=SegmentedVector(estimate)))

        def commit(memories: Memories) -> None:
            staged.commit(memories)
            memories["estimate"] = estimate

        return replace(staged, commit=commit)

    def _checked(self, gradient: Tensor | Sequence[Tensor]) -> SegmentedVector:
        d = self._encoder.layout.d
        vector = SegmentedVector.of(gradient)
        shape = tuple(vector.like.shape)
        if vector.tensors is not None:
            shape = (sum([tensor.numel() for tensor in vector.tensors]),)
        if not shape or shape[-1] != d:
            raise ValueError(f"the layout has {d} elements, but the gradient has shape {shape}")
        if self.round == 0:
            dtype = accumulation_dtype(vector.like.dtype)
            self.memories = self.memories.fitted(shape, dtype, vector.like.device)
        for memory in self.memories.values():
            if memory.shape != shape:
                raise ValueError(
                    f"the memory has shape {tuple(memory.shape)}, but the gradient has shape {shape}; "
                    "make a new sender for another batch of nodes or runs"
                )
        return vector

    def commit(self) -> None:
        """Remember what the staged message changes."""
        if self._staged is None:
            raise RuntimeError("nothing is staged; call stage() first, or send()")
        self._staged.commit(self.memories)
        self._staged = None
        self.round += 1

    def roll_back(self) -> None:
        """Forget what is staged."""
        staged, self._staged = self._staged, None
        if staged is not None:
            staged.undo(self.memories)

    def send(
        self,
        gradient: Tensor | Sequence[Tensor],
        previous: Tensor | None = None,
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message, staged and committed."""
        message = self.stage(gradient, previous, stepsize)
        self.commit()
        return message

    def error(self, message: Message, gradient: Tensor) -> tuple[float, float]:
        """The squared norms of what listeners miss after a committed message, and of the whole.

        Args:
            message: the last one.
            gradient: (d,) what it was made of.
        """
        missing, whole = self._rule.error(self.memories, message, self.memories.get("estimate", gradient))
        return float(missing.double().square().sum()), float(whole.double().square().sum())

    def state_dict(self) -> dict[str, Any]:
        """The round and the memories (..., d) by name; as before what is staged."""
        memories = self.memories.snapshot()
        if self._staged is not None:
            self._staged.undo(memories)
        return {"layout": self._encoder.layout.digest, "round": self.round, **memories}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over round and memories."""
        self.round = take_round(state, self._encoder.layout, self.memories)
        self.memories.load(state)
        self._staged = None


def _direct(inputs: RoundInputs) -> PendingUpdate:
    return PendingUpdate(inputs.encoder.message(inputs.wide(), inputs.round))


DIRECT = SenderRule((), _direct, lambda _, message, gradient: (gradient - message.dense(), gradient))
"""Remembers nothing: m = C(g)."""


def _drain(inputs: RoundInputs) -> PendingUpdate:
    target = inputs.narrow() if inputs.stepsize is None else _scaled(inputs.wide(), inputs.stepsize)
    memories = inputs.memories
    found = inputs.encoder.compress(
        target, inputs.round, memories["residual"], "drain", memories.scratch("residual")
    )
    return PendingUpdate(found.message, lambda changed: changed.swap("residual"))


DRAIN = SenderRule(
    ("residual",),
    _drain,
    lambda memories, message, _: (memories["residual"], memories["residual"] + message.dense()),
)
"""Remembers what was not sent (EF14): m = C(e + g), e <- e + g - m.

With a stepsize it is C(e + stepsize * g).
"""


def _tracking_error(
    memories: Mapping[str, Tensor],
    message: Message,  # noqa: ARG001
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    return gradient - memories["memory"], gradient


def track(init: Init) -> SenderRule:
    """Remembers what was sent (EF21): m = C(g - h), h <- h + m; round 0 as ``init`` says."""

    def stage(inputs: RoundInputs) -> PendingUpdate:
        if inputs.round == 0:
            return _begin(inputs, init)
        memory = inputs.memories["memory"]
        found = inputs.encoder.compress(inputs.narrow(), inputs.round, memory, "track")
        return PendingUpdate(
            found.message,
            lambda memories: found.finish(memories["memory"]),
            lambda memories: found.undo(memories["memory"]),
        )

    return SenderRule(("memory",), stage, _tracking_error)


def track_or_replace(init: Init) -> SenderRule:
    """Remembers what was sent, and sends the better of two messages (EF21+).

    m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g. The choice
    is made for each node and segment, so that it cannot depend on how segments are grouped for sending;
    equally near, it is added. The theorem holds segment by segment, so it holds for the whole.
    """

    def stage(inputs: RoundInputs) -> PendingUpdate:
        encoder, memories, gradient = inputs.encoder, inputs.memories, inputs.wide()
        flat = gradient.flattened()
        if inputs.round == 0:
            first = _begin(inputs, init)
            better = torch.zeros(
                *flat.shape[:-1], first.message.format.segments, dtype=torch.bool, device=flat.device
            )
            return replace(first, message=replace(first.message, replaces=better))
        adding = encoder.compress(gradient, inputs.round, memories["memory"]).message
        added = memories.scratch("memory").copy_(memories["memory"])
        adding.add_to(added)
        replacing = encoder.message(gradient, inputs.round)
        replaced = replacing.dense()
        better = _nearer(encoder, replaced, added, flat)
        message = replace(choose(better, replacing, adding), replaces=better)
        torch.where(spread(better, message), replaced, added, out=added)
        return PendingUpdate(message, lambda changed: changed.swap("memory"))

    return SenderRule(("memory",), stage, _tracking_error)


def _nearer(encoder: Encoder, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Whether first is nearer to target than second, by segment: bool (..., segments)."""
    verdicts = []
    for segment in encoder.layout.segments:
        a, b, t = (vector[..., segment.offset : segment.end] for vector in (first, second, target))
        verdicts.append(squared_norm(a - t) < squared_norm(b - t))
    return torch.stack(verdicts, dim=-1)


def _begin(inputs: RoundInputs, init: Init) -> PendingUpdate:
    """How EF21 starts, as ``init`` says.

    The memory is what the message says, ``h <- fl(0 + v)``: both ends start from the same bits, also where
    the compressor narrows its numbers.
    """
    message = inputs.encoder.message(inputs.wide(), inputs.round, _FIRST[init])
    return PendingUpdate(message, lambda memories: message.add_to(memories["memory"].zero_()))


def _scaled(gradient: SegmentedVector, stepsize: float | Tensor) -> SegmentedVector:
    """``stepsize * gradient`` in the gradient's dtype and shape."""
    flat = gradient.flattened()
    if not isinstance(stepsize, Tensor):
        return SegmentedVector(flat * stepsize)
    scaled = flat * stepsize.detach().to(flat.dtype)
    if scaled.shape != flat.shape:
        raise ValueError(
            f"the stepsize has shape {tuple(stepsize.shape)}, which does not broadcast to "
            f"{(*flat.shape[:-1], 1)}, the gradient's leading dimensions and 1"
        )
    return SegmentedVector(scaled)
