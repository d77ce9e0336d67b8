"""A compression job: what is compressed of a group of segments, and what happens to the memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from laconic.formats import GroupFormat
from laconic.kernels import Stream
from laconic.kernels.tables import Computed, SegmentedVector, Vectors
from laconic.messages import Group

Update = Literal["none", "track", "drain"]

Undo = Callable[[Tensor], None]
"""Puts back into a memory (d,), or a copy of it, what stood there before the job."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is compressed of a group, and what happens to the memory.

    ========  ==============================  =============================================
    update    compressed                      memory
    ========  ==============================  =============================================
    "none"    target, or target - memory      stays
    "track"   target - memory                 memory <- fl(memory + decoded)
    "drain"   fl(memory + target)             stays; out <- fl(fl(memory + target) - decoded)
    ========  ==============================  =============================================

    A compressor that cannot track in the same reading leaves the memory to the caller.

    Args:
        format: the group's format, which says where its segments lie.
        draw: the draws of this seed, round and node.
        target: (..., d) the whole vector, flat or by segment.
        memory: (..., d) in the accumulation dtype, or None.
        update: what happens to the memory.
        out: (..., d) for "drain".
    """

    format: GroupFormat
    draw: Stream
    target: SegmentedVector
    memory: Tensor | None = None
    update: Update = "none"
    out: Tensor | None = None

    def segment(self, s: int) -> Tensor:
        """What is compressed of segment s: (..., numel)."""
        start, numel = self.format.starts[s], self.format.numels[s]
        x = self.target.segment(self.format.places[s], start, numel)
        if self.memory is None:
            return x
        memory = self.memory[..., start : start + numel]
        if self.update != "drain":
            return x - memory
        assert self.out is not None
        return torch.add(memory, x, out=self.out[..., start : start + numel])

    def numbers(self) -> Tensor:
        """What is compressed of all segments, one after another: (..., D)."""
        pieces = [self.segment(s) for s in range(self.format.segments)]
        return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]

    def vectors(self) -> tuple[Vectors, Vectors | None] | None:
        """Target and memory for compiled loops; None where these do not take them."""
        like = self.target.like
        if like.dtype == torch.float16 and self.memory is not None:
            return None
        x = self.target.vectors(self.format.places, self.format.table)
        if x is None or self.memory is None:
            return None if x is None else (x, None)
        if self.memory.dim() != 1 or not self.memory.is_contiguous():
            return None
        return x, self.at(self.memory)

    def computed(self) -> Computed | None:
        """What the target of a job that drains is computed from, where loops may compute it as they read."""
        computed, memory = self.target.computed, self.memory
        if self.update != "drain" or computed is None or memory is None:
            return None
        fits = memory.dim() == 1 and memory.is_contiguous() and memory.dtype == self.target.like.dtype
        return computed.at(self.format.places) if fits else None

    def at(self, vector: Tensor) -> Vectors:
        """The group's segments in a flat vector (d,) in main memory."""
        return Vectors.flat(vector, self.format.table.start_array)


@dataclass(frozen=True, eq=False)
class Compressed:
    """The columns of a group, and how to put the memory back.

    Args:
        group: the columns.
        undo: puts back what a job with an update changed; None where the memory has yet to be moved by
            ``group``.
    """

    group: Group
    undo: Undo | None = None


def nothing_to_undo(memory: Tensor) -> None:
    """The memory was not changed in place."""
