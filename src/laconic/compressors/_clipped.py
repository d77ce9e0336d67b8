"""Rounding to powers of two within a few bits' range below the largest: a clipped exponent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._constants import Constants
from laconic.compressors._not_finite import require_all_finite
from laconic.compressors._quantizer import Quantizer, levels_of
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import ClippedPowers
from laconic.kernels import (
    Levels,
    SegmentedInput,
    Stream,
    largest_magnitude,
    largest_magnitudes,
    round_segments,
    round_to_levels,
)
from laconic.messages import Group, Part


@dataclass(frozen=True)
class ClippedExponent(Quantizer):
    """Rounds to the nearest power of two and sends how far it lies below the largest: 1 + bits bits.

    The largest power 2^E and the w - 1 below it, w = 2^bits - 1, can be said; what rounds lower becomes the
    lowest of them, 2^(E-w+1), or 0, whichever is nearer. From the middle, up.

    Constants: let the largest magnitude meet the power 1, so that it lies in [3/4, 3/2), l = 2^(1-w) be the
    lowest power and u = (d - 1) l^2. A value of [3c/4, 3c/2) becomes c, one of [l/2, 3l/4) becomes l, one
    below l/2 becomes 0. Each ratio is worst where the d - 1 others lie at l/2, and the largest at 3/4 or 3/2:

    * B3: ``1 - 1/delta = (1/16 + u/4) / (9/16 + u/4)``, so delta = (9 + 4u)/8;
    * gamma = min(12/(9 + 4u), 6/(9 + u)), beta = 4 (1 + u)/(3 + 2u), alpha = 4/(9 + u).

    They hold where the largest power does not exceed the dtype's range.

    Args:
        bits: bits beside the sign, 2 to 7.

    Example:
        >>> ClippedExponent(2).compress(torch.tensor([16.0, -7.0, 3.0, 2.0, 1.0])).dense()
        tensor([16., -8.,  4.,  4.,  0.])
    """

    bits: int

    def __post_init__(self) -> None:
        """Check bits."""
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 7:
            raise ValueError(f"bits must be an int from 2 to 7, got {self.bits!r}")

    def part(self, x: Tensor, draw: Stream) -> Part:  # noqa: ARG002
        """A sign and a level number for each coordinate."""
        grid, dtype = ClippedPowers(self.bits), accumulation_dtype(x.dtype)
        levels = levels_of(grid, dtype, x.device)
        codes = round_to_levels(x, levels, base=self._base(largest_magnitude(x), levels))
        return Part(d=x.shape[-1], values=codes, dtype=dtype, grid=grid)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        levels = levels_of(ClippedPowers(self.bits), one.kind.dtype, torch.device("cpu"))
        largest = largest_magnitudes(inputs)
        require_all_finite(bool(torch.isfinite(largest).all()))
        codes, _ = round_segments(inputs, levels, base=self._base(largest.unsqueeze(-1), levels)[..., 0])
        return Group(one, codes)

    def _base(self, largest: Tensor, levels: Levels) -> Tensor:
        # The span hangs from what the largest number is rounded to, not from the level above it.
        highest = round_to_levels(largest, levels, base=torch.zeros((), dtype=torch.int64, device="cpu"))
        return (highest.to(torch.int64) - (levels.window or 0)).clamp(min=0)

    def constants(self, d: int) -> Constants:
        """As derived above."""
        u = (d - 1) * 4.0 ** (2 - (1 << self.bits))
        return Constants(
            alpha=4.0 / (9.0 + u),
            beta=4.0 * (1.0 + u) / (3.0 + 2.0 * u),
            gamma=min(12.0 / (9.0 + 4.0 * u), 6.0 / (9.0 + u)),
            delta=(9.0 + 4.0 * u) / 8.0,
        )

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every value a code."""
        return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=ClippedPowers(self.bits)))
