"""The sender of a node.

A round is staged, then committed: :meth:`NodeSender.stage` makes the message, and what a sender remembers
changes for good with :meth:`NodeSender.commit` alone. What differs between methods is a :class:`SenderRule`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from laconic.feedback._encoder import Content, Encoder
from laconic.feedback._estimators import Estimator
from laconic.feedback._memories import Memories, take_round
from laconic.feedback._update_rules import PendingUpdate, RoundInputs
from laconic.formats import accumulation_dtype
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout
from laconic.messages import Message


class SenderRule(Protocol):
    """What a sender needs to know of its method; :class:`laconic.feedback.Feedback` says more of each."""

    @property
    def memories(self) -> tuple[str, ...]:
        """Their names in state dicts."""

    @property
    def memory_dtype(self) -> torch.dtype:
        """Of the memories of vectors that accumulate in float32."""

    def content(self, round: int) -> Content:
        """What a round's message holds of a vector."""

    def estimator(self) -> Estimator | None:
        """What turns gradients into what is sent."""

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """The message of a round, and the memories of the next."""

    def error(
        self, memories: Mapping[str, Tensor], message: Message, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What listeners miss after a message, and the whole of which it is a part."""


class NodeSender:
    """The sender of a method: memories (..., d), and the round.

    Args:
        encoder: the compressor on its layout.
        rule: what is sent and remembered. The estimate of its estimator is one more memory.
        like: the layout, or a tensor of the vectors' shape, dtype and device.
        dtype: of the vectors, where ``like`` is a layout.
    """

    def __init__(
        self,
        encoder: Encoder,
        rule: SenderRule,
        like: Layout | Tensor | int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Start at round 0 with memories of zeros."""
        self._encoder = encoder
        self._rule = rule
        self._estimator = rule.estimator()
        self._staged: PendingUpdate | None = None
        names = rule.memories if self._estimator is None else (*rule.memories, "estimate")
        self.round = 0
        self.memories = Memories.like(names, like, dtype, rule.memory_dtype)

    def stage(
        self,
        gradient: Tensor | Sequence[Tensor] | SegmentedVector,
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message; what is remembered stays as it is until :meth:`commit`.

        The memories' own numbers may move on with the reading that makes the message. They are put back by
        :meth:`roll_back`, by another stage, and in what :meth:`state_dict` returns before the commit.
        """
        self.roll_back()
        vector = self._checked(gradient)
        self.memories.move(vector.like.device)
        content = self._rule.content(self.round)
        inputs = RoundInputs(self._encoder, self.memories, vector, self.round, content, stepsize)
        if self._estimator is None:
            self._staged = self._rule.stage(inputs)
        else:
            self._staged = self._behind_estimator(inputs, self._estimator)
        return self._staged.message

    def _behind_estimator(self, inputs: RoundInputs, estimator: Estimator) -> PendingUpdate:
        last = self.memories["estimate"] if self.round else None
        estimate = estimator(last, inputs.flat())
        staged = self._rule.stage(replace(inputs, gradient=SegmentedVector(estimate)))
        return replace(staged, memories={**staged.memories, "estimate": estimate})

    def _checked(self, gradient: Tensor | Sequence[Tensor] | SegmentedVector) -> SegmentedVector:
        layout, vector = self._encoder.layout, SegmentedVector.of(gradient)
        d, shape = layout.d, tuple(vector.like.shape)
        if vector.tensors is not None:
            if [tensor.numel() for tensor in vector.tensors] != layout.numels:
                raise ValueError("the gradient needs a tensor for each segment, of as many numbers")
            shape = (d,)
            if vector.like.device.type != "cpu":
                vector = SegmentedVector(vector.flattened())
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
        self.memories.update(self._staged.memories)
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
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """This round's message, staged and committed."""
        message = self.stage(gradient, stepsize)
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
