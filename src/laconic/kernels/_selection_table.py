"""Table of the segments and blocks of a flat vector, and how many numbers Top-k keeps of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from laconic.kernels.tables import Integers, bounds_of

Wish = int | Sequence[int] | Integers | Any
"""A number for all segments, or one for each: a sequence, a numpy array or a CPU tensor."""


@dataclass(frozen=True, eq=False)
class SelectionTable:
    """Segments of a flat vector, checked once; of each, the largest magnitudes are kept.

    Make it with :meth:`of` and keep it: arrays and plans are made once.

    Attributes:
        starts, lengths: of the segments.
        blocks: a segment is cut into blocks of as many numbers; its length where it is not cut.
        counts: kept of each whole block.
        lasts: kept of a shorter last block; 0 where there is none.
        kept: numbers kept of each segment.
        offsets: where each segment's part begins among all that is kept.
    """

    starts: Integers
    lengths: Integers
    blocks: Integers
    counts: Integers
    lasts: Integers
    kept: Integers
    offsets: Integers
    total: int
    """Numbers kept in all."""
    numel: int
    """Numbers in all segments."""
    end: int
    """One past the last place of any segment."""
    most: int
    """The largest number kept of a block that is not kept whole."""
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, starts: Wish, lengths: Wish, counts: Wish, *, block: Wish = 0, last: Wish = 0
    ) -> "SelectionTable":
        """Segments that keep ``counts`` of their numbers, or of every ``block`` of them.

        Args:
            starts: (segments,) integers >= 0.
            lengths: (segments,) integers >= 1.
            counts: (segments,) integers, or one for all; in [1, length], or in [1, block].
            block: numbers a block, (segments,) or one for all; 0 for whole segments.
            last: kept of a last block that is shorter, (segments,) or one for all; in [1, its length].

        Raises:
            ValueError: naming the segment and what does not fit.

        Example:
            >>> SelectionTable.of([0, 10], [10, 5], [3, 2]).total
            5
            >>> SelectionTable.of([0], [10], 2, block=4, last=1).total
            5
        """
        first = _integers("starts", starts, None)
        size = first.size
        length = _integers("lengths", lengths, size)
        keep = _integers("counts", counts, size)
        blocks = _integers("block", block, size)
        blocks = np.where((blocks == 0) | (blocks > length), length, blocks)
        rest = length % np.maximum(blocks, 1)
        lasts = np.where(rest > 0, _integers("last", last, size), 0)
        _refuse(first < 0, first, "starts at", "a start is >= 0")
        _refuse(length < 1, length, "has length", "leave empty segments out")
        _refuse(blocks < 1, blocks, "has blocks of", "a block has at least one number, or is 0 for none")
        _refuse((keep < 1) | (keep > blocks), keep, "keeps", "keep between 1 and all of its numbers")
        odd = (rest > 0) & ((lasts < 1) | (lasts > rest))
        _refuse(odd, lasts, "keeps of its last block", "keep between 1 and all of its numbers")
        kept = length // blocks * keep + lasts
        offsets = bounds_of(kept)
        most = int(np.where(keep < blocks, keep, 0).max(initial=0))
        most = max(most, int(np.where(lasts < rest, lasts, 0).max(initial=0)))
        end = int((first + length).max(initial=0))
        return cls(
            first, length, blocks, keep, lasts, kept, offsets, int(offsets[-1]), int(length.sum()), end, most
        )


def _integers(name: str, wish: Wish, size: int | None) -> Integers:
    array = np.asarray(wish)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if size is not None and array.ndim == 0:
        array = np.full(size, array)
    if array.ndim != 1 or (size is not None and array.size != size):
        raise ValueError(f"{name} must have one entry for each segment, got shape {array.shape}")
    return np.array(array, dtype=np.int64)


def _refuse(wrong: npt.NDArray[np.bool_], found: Integers, says: str, remedy: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"segment {place} {says} {found[place]}; {remedy}")
