"""A part: the columns of one segment, as ``encode`` returns them or as a view of a group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.formats import Kind, SegmentFormat
from laconic.formats.grids import Grid


@dataclass(frozen=True)
class Part:
    """What was kept of one segment, for a batch of rows.

    Without a grid ``values`` are the kept numbers themselves. With one they are codes, and the number
    is ``sign(code) * fl(level(|code|) * scale)``, or with ``low``, which goes with ``block``,
    ``sign(code) * fl(low + fl(level(|code|) * scale))``. Either is multiplied by ``factor`` when decoded.

    Args:
        d: length of the segment.
        values: (..., k): numbers of a floating-point dtype, or codes of ``grid``: integers, the library's own
            in int8 for up to 127 levels, int16 for up to 32767, else int32.
        dtype: dtype of the numbers; the accumulation dtype where they are codes.
        positions: int64 (..., k), ascending in [0, d); None where all are kept (k = d). Where the
            number kept varies by row, places that are not used stand last and hold d.
        count: int64 (..., 1), how many places are used; None where all are.
        grid: the levels of codes, or None.
        scale: in the accumulation dtype, (..., 1), or one for each ``block`` of places,
            (..., ceil(k / block)); or None.
        factor: what decoded numbers are multiplied by.
        seeded: whether the positions follow from shared randomness, so that they carry no information.
        low: what is added to scaled levels, of the shape of ``scale``; None: nothing.
        block: places that share a scale; None: all.
        cells: (length, count) where the first ``count`` positions lie in [0, length), the next ``count`` in
            [length, 2 length), and so on to the last cell, which may be shorter and hold fewer.
        origin: int64 (..., 4), the seed, round, node and segment of the draw whose permutation gives the
            positions; so a seed may travel in their place.
    """

    d: int
    values: Tensor
    dtype: torch.dtype
    positions: Tensor | None = None
    count: Tensor | None = None
    grid: Grid | None = None
    scale: Tensor | None = None
    factor: float = 1.0
    seeded: bool = False
    low: Tensor | None = None
    block: int | None = None
    cells: tuple[int, int] | None = None
    origin: Tensor | None = None

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return self.values.shape[:-1]

    @property
    def k(self) -> int:
        """Number of places in a row."""
        return self.values.shape[-1]

    @property
    def format(self) -> SegmentFormat:
        """The segment's format."""
        kind = Kind(
            dtype=self.dtype,
            has_positions=self.positions is not None,
            has_counts=self.count is not None,
            seeded=self.seeded,
            sends_seed=self.origin is not None,
            grid=self.grid,
            has_scale=self.scale is not None,
            has_low=self.low is not None,
            block=self.block,
        )
        return SegmentFormat(self.d, self.k, kind, self.cells, self.factor)
