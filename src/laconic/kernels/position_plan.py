"""Plan of the packed positions of a group: the form of each segment and its place in the streams.

Each segment's positions take the form with the fewest bits; of equal ones the first of: implied (none or all
are used), cells, Elias-Fano, bitmap. The low stream is the segments' low bits one after another, the high
stream their high bits; each is filled with zeros to whole bytes once. docs/wire-format.md has the forms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from laconic.kernels.tables import Integers, bounds_of

IMPLIED, CELLS, ELIAS_FANO, BITMAP = range(4)
_LONGEST = 1 << 50
"""Low bits of a position are read from one unaligned word, and float64 holds such lengths exactly."""


class PositionPlan(NamedTuple):
    """Where each segment's positions lie in the streams.

    Args:
        numels: (S,) lengths of the segments.
        used: (S,) positions of each.
        bounds: (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``, of which the
            first ``used[s]`` are used.
        forms: (S,) ``IMPLIED``, ``CELLS``, ``ELIAS_FANO`` or ``BITMAP``.
        widths: (S,) low bits of a position.
        cell_lengths: (S,) coordinates of a cell; 0 where there are none.
        cell_counts: (S,) positions in a cell.
        lows: (S + 1,): the segment's low bits are those from ``lows[s]`` to ``lows[s + 1]`` of their stream.
        highs: (S + 1,), of the high stream.
    """

    numels: Integers
    used: Integers
    bounds: Integers
    forms: Integers
    widths: Integers
    cell_lengths: Integers
    cell_counts: Integers
    lows: Integers
    highs: Integers

    @property
    def columns(self) -> int:
        """Columns of all segments, used or not."""
        return int(self.bounds[-1])

    @property
    def total_used(self) -> int:
        """Positions of all segments."""
        return int(self.used.sum())

    @property
    def total_bits(self) -> int:
        """Bits of both streams, without those that fill bytes."""
        return int(self.lows[-1] + self.highs[-1])

    @property
    def low_bytes(self) -> int:
        """Bytes of the low stream, which stands first."""
        return (int(self.lows[-1]) + 7) // 8

    @property
    def nbytes(self) -> int:
        """Bytes of both streams."""
        return self.low_bytes + (int(self.highs[-1]) + 7) // 8


def position_plan(
    numels: Sequence[int] | Integers,
    used: Sequence[int] | Integers,
    cell_lengths: Sequence[int] | Integers | None = None,
    cell_counts: Sequence[int] | Integers | None = None,
    kept: Sequence[int] | Integers | None = None,
) -> PositionPlan:
    """The plan for ascending positions in [0, numel) of each segment.

    Args:
        numels: (S,), each >= 1.
        used: (S,) positions of each segment.
        cell_lengths: (S,) coordinates of a cell, 0 where a segment has none; None: none has.
        cell_counts: (S,) positions in a cell.
        kept: (S,) columns that each segment owns; None: ``used``.

    Raises:
        ValueError: where more positions are used than a segment has coordinates or columns.

    Example:
        >>> plan = position_plan([1000, 4, 8], [20, 4, 4])
        >>> plan.forms.tolist(), plan.widths.tolist(), plan.total_bits
        ([2, 0, 3], [5, 0, 0], 159)
    """
    d, n = np.asarray(numels, np.int64), np.asarray(used, np.int64)
    columns = n if kept is None else np.asarray(kept, np.int64)
    lengths, counts = (
        np.zeros_like(d) if given is None else np.asarray(given, np.int64)
        for given in (cell_lengths, cell_counts)
    )
    if bool(((n < 0) | (n > d) | (n > columns)).any()):
        raise ValueError("more positions are used than the segment has coordinates or columns")
    if int(np.maximum(d, lengths).max(initial=0)) > _LONGEST or bool((counts < (lengths > 0)).any()):
        raise ValueError(f"segments and cells have up to {_LONGEST} coordinates, and cells hold positions")
    lows = np.arange(int(d.max(initial=1) - 1).bit_length() + 1)[:, None]
    costs = n * lows + (d - 1 >> lows)
    width = costs.argmin(axis=0)
    fano = n + np.take_along_axis(costs, width[None], 0)[0]
    # The order of the rows is the order in which equal forms are preferred.
    in_cell = np.where(lengths > 0, _bit_length(lengths - 1), 0)
    none = np.iinfo(np.int64).max
    implied = np.where((n == 0) | (n == d), 0, none)
    forms = np.stack((implied, np.where(lengths > 0, n * in_cell, none), fano, d)).argmin(axis=0)
    widths = np.where(forms == CELLS, in_cell, np.where(forms == ELIAS_FANO, width, 0))
    high = np.where(forms == ELIAS_FANO, fano - n * width, np.where(forms == BITMAP, d, 0))
    return PositionPlan(
        d, n, bounds_of(columns), forms, widths, lengths, counts, bounds_of(n * widths), bounds_of(high)
    )


def _bit_length(numbers: Integers) -> Integers:
    length: Integers = np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    return length
