"""A compressor applied segment by segment, with the draws of a node and a round."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors import Compressor, Identity, Undo, for_rule, require_finite
from laconic.kernels import Stream
from laconic.layout import Layout, Segment
from laconic.messages import Message, Part, accumulation_dtype


@dataclass(frozen=True)
class Staged:
    """A round that has not been committed.

    Args:
        message: what is sent.
        commit: returns the memory of the next round, perhaps this round's own tensor.
        undo: puts back, in the memory or a copy of it, what has already changed.
    """

    message: Message
    commit: Callable[[], Tensor | None]
    undo: Undo = lambda _: None


@dataclass(frozen=True)
class Encoder:
    """Turns flat vectors (..., d) into messages of one part a segment."""

    layout: Layout
    compressor: Compressor
    node: int | Tensor
    seed: int | Tensor

    def __post_init__(self) -> None:
        """Check the settings against every segment, before any memory exists."""
        for segment in self.layout.segments:
            self._for(segment).constants(segment.numel)

    def _for(self, segment: Segment) -> Compressor:
        return for_rule(segment.rule, self.compressor)

    def dense(self, x: Tensor, round: int) -> Message:
        """The whole vector."""
        whole = Identity()
        return self._message(round, lambda _: whole, x)

    def rounded(self, x: Tensor, round: int) -> Message:
        """The whole vector, rounded to bfloat16 save where a segment travels exactly."""
        exact = for_rule("exact", self.compressor)
        narrow = for_rule("bfloat16", self.compressor)
        return self._message(round, lambda segment: exact if self._for(segment) == exact else narrow, x)

    def encode(self, x: Tensor, round: int) -> Message:
        """The compressed vector."""
        return self._message(round, self._for, x)

    def encode_difference(self, target: Tensor, memory: Tensor, round: int) -> Message:
        """The compressed difference of two vectors."""
        return self._message(round, self._for, target, memory)

    def move_(self, memory: Tensor, round: int, target: Tensor | None = None) -> Staged:
        """As :meth:`encode_difference`, and memory moves towards the target; or as :meth:`encode`, towards 0.

        What can be done in the same reading is; the rest waits for the commit.

        Raises:
            NotFiniteError: with memory as before.
        """
        draw = Stream(self.seed, round, self.node)
        segments = self.layout.segments
        parts: dict[int, Part] = {}
        undos: list[Undo] = []
        late: list[int] = []

        def undo(moved: Tensor) -> None:
            for one in undos:
                one(moved)

        try:
            for compressor, places in self._together(self._for):
                chosen = [segments[i] for i in places]
                moved = compressor.move_segments_(chosen, draw, memory, target)
                if moved is None:
                    against = (memory, None) if target is None else (target, memory)
                    found = compressor.encode_segments(chosen, draw, *against)
                    late += places
                else:
                    found = moved[0]
                    undos.append(moved[1])
                parts |= zip(places, found, strict=True)
        except BaseException:
            undo(memory)
            raise
        message = self._joined(parts, round)
        weight = -1.0 if target is None else 1.0

        def commit() -> Tensor:
            if not undos:
                message.add_to(memory, weight)
            else:
                for i in late:
                    parts[i].add_to(memory[..., segments[i].offset : segments[i].end], weight)
            return memory

        return Staged(message, commit, undo)

    def silent(self, x: Tensor, round: int) -> Message:
        """A message that says nothing, of a vector that is finite."""
        require_finite(x)
        positions = torch.empty((*x.shape[:-1], 0), dtype=torch.int64, device=x.device)
        parts = tuple(
            Part(d=segment.numel, values=x[..., :0].clone(), dtype=x.dtype, positions=positions)
            for segment in self.layout.segments
        )
        return Message(parts, round=round, digest=self.layout.digest)

    def _message(
        self,
        round: int,
        choose: Callable[[Segment], Compressor],
        target: Tensor,
        memory: Tensor | None = None,
    ) -> Message:
        draw = Stream(self.seed, round, self.node)
        parts: dict[int, Part] = {}
        for compressor, places in self._together(choose):
            segments = [self.layout.segments[i] for i in places]
            found = compressor.encode_segments(segments, draw, target, memory)
            parts |= zip(places, found, strict=True)
        return self._joined(parts, round)

    def _together(self, choose: Callable[[Segment], Compressor]) -> Iterable[tuple[Compressor, list[int]]]:
        """The compressors, and the places of the segments that each gets."""
        # By identity, since a compressor need not be hashable.
        together: dict[int, tuple[Compressor, list[int]]] = {}
        for i, segment in enumerate(self.layout.segments):
            compressor = choose(segment)
            together.setdefault(id(compressor), (compressor, []))[1].append(i)
        return together.values()

    def _joined(self, parts: dict[int, Part], round: int) -> Message:
        return Message(tuple(parts[i] for i in sorted(parts)), round=round, digest=self.layout.digest)


def checked(gradient: Tensor, layout: Layout, memory: Tensor | None) -> Tensor:
    """The gradient, detached.

    Raises:
        ValueError: where its shape does not fit the layout or the memory.
    """
    if gradient.dim() == 0 or gradient.shape[-1] != layout.d:
        raise ValueError(
            f"the layout has {layout.d} elements, but the gradient has shape {tuple(gradient.shape)}"
        )
    if memory is not None and memory.shape != gradient.shape:
        raise ValueError(
            f"the memory has shape {tuple(memory.shape)}, but the gradient has shape "
            f"{tuple(gradient.shape)}; "
            "make a new sender for another batch of nodes or runs"
        )
    return gradient.detach()


def widened(gradient: Tensor, memory: Tensor | None) -> Tensor:
    """The gradient in the memory's dtype, at first in its own accumulation dtype."""
    return gradient.to(accumulation_dtype(gradient.dtype) if memory is None else memory.dtype)


def require_contractive(compressor: Compressor, layout: Layout, method: str) -> None:
    """Refuse a compressor that is not contractive (class B3) on some segment.

    Raises:
        ValueError: naming ``.contractive()``.
    """
    for segment in layout.segments:
        if segment.rule == "compress" and compressor.constants(segment.numel).contraction is None:
            raise ValueError(
                f"{method} needs a contractive compressor, and {compressor!r} is not one for d = "
                f"{segment.numel}: the method would diverge. Use its .contractive() form"
            )
