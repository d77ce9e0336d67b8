"""Layouts: the named segments of a flat vector, in order."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["compress", "exact", "bfloat16"]
"""How a segment is sent: compressed, exactly, or cast to bfloat16."""

RULES: tuple[Rule, ...] = ("compress", "exact", "bfloat16")
"""The rules by their code on the wire."""


@dataclass(frozen=True)
class Segment:
    """One stretch of the flat vector, compressed on its own.

    Args:
        name: unique in its layout; for a parameter, its fully qualified name.
        shape: the shape of the tensor that lies here.
        offset: where it starts in the flat vector, in elements.
        rule: "compress"; "exact" for what must travel whole; or "bfloat16" for what travels whole in 16 bits,
            its rounding errors left to the feedback.
        number: what its random draws are keyed by: its place in the layout of the whole model, which it
            keeps in every selection of segments.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    rule: Rule = "compress"
    number: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def end(self) -> int:
        """One past the last element."""
        return self.offset + self.numel


@dataclass(frozen=True)
class Layout:
    """An ordered tuple of segments that cover [0, d) without gaps.

    Selection, scales, flags and rounding happen segment by segment. Nothing computed may depend on how
    segments are grouped for sending, so a layout knows nothing of buckets.

    Raises:
        ValueError: where the segments do not follow each other, a name is used twice, a segment is
            empty, or a rule is unknown.

    Example:
        >>> layout = Layout.of({"weight": (3, 4), "bias": (3,)}, exact=["bias"])
        >>> layout.d, [(s.name, s.offset, s.rule) for s in layout.segments]
        (15, [('weight', 0, 'compress'), ('bias', 12, 'exact')])
        >>> Layout.flat(15).digest == layout.digest
        False
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        """Check that the segments cover [0, d) once."""
        if not self.segments:
            raise ValueError("a layout needs at least one segment")
        names = set()
        offset = 0
        for segment in self.segments:
            if segment.name in names:
                raise ValueError(f"the segment name {segment.name!r} is used twice; names must be unique")
            if segment.numel < 1:
                raise ValueError(f"segment {segment.name!r} is empty; leave it out")
            if segment.offset != offset:
                raise ValueError(
                    f"segment {segment.name!r} starts at {segment.offset}, but the one before it ends at "
                    f"{offset}; Layout.of computes the offsets"
                )
            if segment.rule not in RULES:
                raise ValueError(f"unknown rule {segment.rule!r} of segment {segment.name!r}")
            names.add(segment.name)
            offset = segment.end

    @classmethod
    def flat(cls, d: int) -> "Layout":
        """One segment of d elements: the simulator's vector, or one global Top-k over a model."""
        return cls((Segment("x", (d,), 0),))

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, Iterable[int] | Tensor],
        *,
        exact: Iterable[str] = (),
        bfloat16: Iterable[str] = (),
    ) -> "Layout":
        """A segment for each name, in the mapping's order.

        Args:
            shapes: name to shape, or to a tensor of that shape, as ``dict(model.named_parameters())``.
            exact: names of the segments that travel whole.
            bfloat16: names of the segments that travel whole in bfloat16.
        """
        rules: dict[str, Rule] = {}
        for names, rule in ((bfloat16, RULES[2]), (exact, RULES[1])):
            rules |= dict.fromkeys(names, rule)
        if unknown := set(rules) - set(shapes):
            raise ValueError(
                f"exact or bfloat16 names {sorted(unknown)} are not among the segments {list(shapes)}"
            )
        segments: list[Segment] = []
        offset = 0
        for name, value in shapes.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else tuple(value)
            segments.append(Segment(name, shape, offset, rules.get(name, "compress"), len(segments)))
            offset = segments[-1].end
        return cls(tuple(segments))

    def select(self, names: Iterable[str]) -> "Layout":
        """Some of the segments, in the order given, as a layout of their own.

        Each keeps its number, so that what is computed of a segment does not depend on its companions.

        Raises:
            ValueError: for a name that is not in the layout.

        Example:
            >>> part = Layout.of({"a": (2,), "b": (3,), "c": (4,)}).select(["c", "a"])
            >>> [(s.name, s.offset, s.number) for s in part.segments]
            [('c', 0, 2), ('a', 4, 0)]
        """
        known = {segment.name: segment for segment in self.segments}
        chosen: list[Segment] = []
        offset = 0
        for name in names:
            if name not in known:
                raise ValueError(f"no segment is named {name!r}; there are {list(known)}")
            chosen.append(replace(known[name], offset=offset))
            offset = chosen[-1].end
        return Layout(tuple(chosen))

    @classmethod
    def like(cls, layout_or_like: "Layout | Tensor | int") -> "Layout":
        """The layout itself, or one segment as long as a tensor's last dimension, or of d elements."""
        if isinstance(layout_or_like, Layout):
            return layout_or_like
        if isinstance(layout_or_like, Tensor):
            if layout_or_like.dim() == 0:
                raise ValueError("a tensor that stands for a layout needs a last dimension, shape (..., d)")
            return cls.flat(layout_or_like.shape[-1])
        return cls.flat(layout_or_like)

    def __hash__(self) -> int:
        """From the digest, which is computed once."""
        return self.digest

    @property
    def d(self) -> int:
        """Length of the flat vector."""
        return self.segments[-1].end

    @cached_property
    def numels(self) -> list[int]:
        """The length of each segment."""
        return [segment.numel for segment in self.segments]

    @cached_property
    def digest(self) -> int:
        """32 bits of a hash of names, shapes and rules."""
        return _hash32(self._text)

    def digest_of(self, dtype: torch.dtype) -> int:
        """32 bits of a hash of the layout and the dtype of decoded messages: travels in every frame."""
        if dtype not in self._digests:
            self._digests[dtype] = _hash32(f"{self._text}\n{dtype}")
        return self._digests[dtype]

    @cached_property
    def _text(self) -> str:
        return "\n".join(f"{s.name!r} {s.shape} {s.rule}" for s in self.segments)

    @cached_property
    def _digests(self) -> dict[torch.dtype, int]:
        return {}


def _hash32(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
