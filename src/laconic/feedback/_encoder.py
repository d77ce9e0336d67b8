"""Compression of a vector by groups of segments, with the draws of a node and a round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from laconic.compressors import (
    Cast,
    Compressor,
    CompressorGroup,
    Identity,
    Job,
    Undo,
    compressor_for_segment,
    compressor_groups,
    require_finite,
)
from laconic.formats import MessageFormat, accumulation_dtype
from laconic.kernels import Stream
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout, Segment
from laconic.messages import Group, Message, add_nodes_

Content = Literal["compressed", "dense", "rounded", "silent"]
"""Contents of a message: compressed segments, all numbers, all numbers in bfloat16, or none."""


@dataclass(frozen=True)
class CompressedVector:
    """A message, and what is left to do for the memory that it is to move.

    Args:
        message: what is sent.
        undos: put back, in the memory or a copy of it, what has already changed.
        late: the groups that have not moved the memory yet.
    """

    message: Message
    undos: tuple[Undo, ...]
    late: tuple[Group, ...]

    def finish(self, memory: Tensor) -> None:
        """Add to the memory what has not been added yet."""
        if self.late:
            add_nodes_(memory, [self.late], [1.0])

    def undo(self, memory: Tensor) -> None:
        """Put back what has been added."""
        for undo in self.undos:
            undo(memory)


@dataclass(frozen=True)
class Encoder:
    """Turns vectors (..., d) into messages, one group of columns for each compressor."""

    layout: Layout
    compressor: Compressor
    node: int | Tensor
    seed: int | Tensor
    _known: dict[tuple[Content, torch.dtype], tuple[CompressorGroup, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the settings against every segment, before any memory exists."""
        for segment in {(one.numel, one.rule): one for one in self.layout.segments}.values():
            compressor_for_segment(segment, self.compressor).constants(segment.numel)

    def groups(self, content: Content, dtype: torch.dtype) -> tuple[CompressorGroup, ...]:
        """The groups of messages of that content, for vectors that accumulate in ``dtype``."""
        key = content, dtype
        if key not in self._known:
            self._known[key] = content_groups(self.layout, self.compressor, content, dtype)
        return self._known[key]

    def message(self, x: SegmentedVector, round: int, content: Content = "compressed") -> Message:
        """The message of a vector in its accumulation dtype.

        Raises:
            NotFiniteError: where the vector is not finite.
        """
        if content == "silent":
            return self._silent(x, round)
        return self.compress(x, round, content=content).message

    def compress(
        self,
        target: SegmentedVector,
        round: int,
        memory: Tensor | None = None,
        update: Literal["none", "track", "drain"] = "none",
        out: Tensor | None = None,
        content: Content = "compressed",
    ) -> CompressedVector:
        """The message of a vector, or of what a memory makes of it; see :class:`laconic.compressors.Job`.

        Raises:
            NotFiniteError: with memory as before.
        """
        draw = Stream(self.seed, round, self.node)
        groups: list[Group] = []
        undos: list[Undo] = []
        late: list[Group] = []
        dtype = accumulation_dtype(target.like.dtype) if memory is None else memory.dtype
        try:
            for one in self.groups(content, dtype):
                found = one.compressor.compress_group(Job(one.format, draw, target, memory, update, out))
                groups.append(found.group)
                if update == "track":
                    if found.undo is None:
                        late.append(found.group)
                    else:
                        undos.append(found.undo)
        except BaseException:
            for undo in undos:
                assert memory is not None
                undo(memory)
            raise
        return CompressedVector(self._message(groups, round), tuple(undos), tuple(late))

    def _silent(self, x: SegmentedVector, round: int) -> Message:
        for tensor in x.tensors or (x.flattened(),):
            require_finite(tensor)
        (one,) = self.groups("silent", accumulation_dtype(x.like.dtype))
        positions = torch.empty((*x.batch, 0), dtype=torch.int64, device=x.like.device)
        values = torch.empty((*x.batch, 0), dtype=one.format.kind.dtype, device=x.like.device)
        return self._message([Group(one.format, values, positions)], round)

    def _message(self, groups: list[Group], round: int) -> Message:
        message = Message(groups, round=round)
        return Message(groups, round=round, digest=self.layout.digest_of(message.dtype))


def content_groups(
    layout: Layout, compressor: Compressor, content: Content, dtype: torch.dtype
) -> tuple[CompressorGroup, ...]:
    """The groups of messages of that content.

    Args:
        layout: the segments.
        compressor: of the segments whose rule is "compress".
        content: what messages hold.
        dtype: the accumulation dtype of the vectors.
    """
    whole, narrow = Identity(), Cast(torch.bfloat16)
    choices: Mapping[Content, Callable[[Segment], Compressor]] = {
        "compressed": lambda segment: compressor_for_segment(segment, compressor),
        "dense": lambda _: whole,
        # What travels exactly in later rounds does so in the first one, too.
        "rounded": lambda segment: whole if compressor_for_segment(segment, compressor) == whole else narrow,
        "silent": lambda _: whole,
    }
    groups = compressor_groups(layout, choices[content], dtype)
    if content != "silent":
        return groups
    silent = MessageFormat(tuple(one.format for one in groups)).silent.groups
    return tuple(CompressorGroup(whole, one) for one in silent)


def content_format(
    layout: Layout,
    compressor: Compressor,
    content: Content,
    dtype: torch.dtype,
    *,
    replace_flags: bool = False,
) -> MessageFormat:
    """The format of messages of that content; arguments as for :func:`content_groups`."""
    groups = tuple(one.format for one in content_groups(layout, compressor, content, dtype))
    found = MessageFormat(groups, replace_flags=replace_flags)
    return MessageFormat(groups, layout.digest_of(found.dtype), replace_flags)


def require_contractive(compressor: Compressor, layout: Layout, method: str) -> None:
    """Refuse a compressor that is not contractive (class B3) on some segment.

    Raises:
        ValueError: naming ``.contractive()``.
    """
    for d in dict.fromkeys(s.numel for s in layout.segments if s.rule == "compress"):
        if compressor.constants(d).contraction is None:
            raise ValueError(
                f"{method} needs a contractive compressor, and {compressor!r} is not one for d = "
                f"{d}: the method would diverge. Use its .contractive() form"
            )
