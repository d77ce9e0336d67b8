"""The format of a message: its groups, and the sizes that follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch

from laconic.formats._groups import GroupFormat, SegmentFormat, group_formats
from laconic.formats._kinds import Kind
from laconic.formats.sizes import FRAME_BYTES, largest_bytes, whole_bytes


@dataclass(frozen=True)
class MessageFormat:
    """What both ends know of a node's messages, so that they travel without a description.

    ``feedback.format(layout, dtype, round)`` makes it.

    Args:
        groups: the groups, in the order in which they travel.
        digest: 32 bits of a hash of layout and dtype.
        replace_flags: whether a bit for each segment says whether it replaces the memory, as in EF21+.
    """

    groups: tuple[GroupFormat, ...]
    digest: int = 0
    replace_flags: bool = False

    @cached_property
    def segments(self) -> int:
        """Number of segments of all groups."""
        return sum(group.segments for group in self.groups)

    @cached_property
    def d(self) -> int:
        """Length of the flat vector."""
        return sum(group.d for group in self.groups)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of decoded messages: float64 if that of any group is, else float32."""
        return reduce(torch.promote_types, (group.accumulation for group in self.groups))

    @cached_property
    def segment_formats(self) -> tuple[SegmentFormat, ...]:
        """The format of each segment, in the layout's order."""
        found = {
            place: one
            for group in self.groups
            for place, one in zip(group.places, group.segment_formats, strict=True)
        }
        return tuple(found[place] for place in sorted(found))

    @cached_property
    def fixed(self) -> bool:
        """Whether every message has the same size, ``max_nbytes``: no exchange of sizes is needed."""
        return not any(group.kind.has_counts or group.kind.adaptive for group in self.groups)

    @cached_property
    def adaptive(self) -> bool:
        """Whether positions travel in blocks that adapt to their density."""
        return any(group.kind.adaptive for group in self.groups)

    @cached_property
    def max_nbytes(self) -> int:
        """Bytes of the largest message, frame included."""
        return self._head_nbytes + self.sections_nbytes

    @property
    def sections_nbytes(self) -> int:
        """Bytes of the largest message without its head: what grows with the vector."""
        return sum(map(largest_bytes, self.groups))

    @property
    def _head_nbytes(self) -> int:
        return FRAME_BYTES + (whole_bytes(self.segments) if self.replace_flags else 0)

    @cached_property
    def dense(self) -> "MessageFormat":
        """The format of rounds in which every number travels."""
        return self._of_all(Kind(self.dtype), None)

    @cached_property
    def silent(self) -> "MessageFormat":
        """The format of rounds in which nothing travels."""
        return self._of_all(Kind(self.dtype, has_positions=True), 0)

    def _of_all(self, kind: Kind, k: int | None) -> "MessageFormat":
        formats = [SegmentFormat(one.d, one.d if k is None else k, kind) for one in self.segment_formats]
        return MessageFormat(group_formats(formats), self.digest, self.replace_flags)

    def adapted(self) -> "MessageFormat":
        """The same, with positions that adapt to their density.

        Real gradients cluster, which saves a quarter of the positions' bytes; but sizes vary below
        ``max_nbytes``, so that they have to be exchanged first.
        """
        return MessageFormat(tuple(group.adapted() for group in self.groups), self.digest, self.replace_flags)

    def difference(self, found: Sequence[GroupFormat]) -> str:
        """The first difference of other groups from these, for an error."""
        if len(found) != len(self.groups):
            return f"it has {len(found)} groups where {len(self.groups)} are expected"
        for number, (have, want) in enumerate(zip(found, self.groups, strict=True)):
            if have != want:
                names = ("kind", "numels", "kept", "places", "cells", "factors")
                field = next((n for n in names if getattr(have, n) != getattr(want, n)), "starts")
                return f"group {number} has {field} {getattr(have, field)}, expected {getattr(want, field)}"
        return "they are equal"
