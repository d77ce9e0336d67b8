"""The groups of a layout: segments that share a compressor and a kind of message."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laconic.compressors._base import Compressor
from laconic.compressors._cast import Cast, Identity
from laconic.formats import GroupFormat, group_formats
from laconic.layout import Layout, Rule, Segment

_UNCOMPRESSED: dict[Rule, Compressor] = {"exact": Identity(), "bfloat16": Cast(torch.bfloat16)}


def compressor_for_segment(segment: Segment, compressor: Compressor) -> Compressor:
    """The compressor itself where the segment's rule is "compress", else what the rule names.

    Example:
        >>> import laconic
        >>> compressor_for_segment(Segment("bias", (3,), 0, "bfloat16"), laconic.TopK(1))
        Cast(dtype=torch.bfloat16)
    """
    return _UNCOMPRESSED.get(segment.rule, compressor)


@dataclass(frozen=True)
class CompressorGroup:
    """A group's format, and the compressor of its segments."""

    compressor: Compressor
    format: GroupFormat


def compressor_groups(
    layout: Layout, choose: Callable[[Segment], Compressor], dtype: torch.dtype
) -> tuple[CompressorGroup, ...]:
    """The groups in which a layout is compressed, in the order of their first segments.

    Args:
        layout: the segments.
        choose: the compressor of a segment.
        dtype: of what is compressed.

    Raises:
        ValueError: where a compressor's settings do not fit a segment.
    """
    chosen = [choose(segment) for segment in layout.segments]
    # By identity, since a compressor need not be hashable.
    known = {(id(c), s.numel): (c, s.numel) for c, s in zip(chosen, layout.segments, strict=True)}
    formats = {key: compressor.structure(d, dtype) for key, (compressor, d) in known.items()}
    groups = group_formats(
        [formats[id(c), s.numel] for c, s in zip(chosen, layout.segments, strict=True)],
        numbers=[segment.number for segment in layout.segments],
        keys=[id(compressor) for compressor in chosen],
    )
    return tuple(CompressorGroup(chosen[one.places[0]], one) for one in groups)
