"""Rounding each number to a level of a grid, at random or to the nearest."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from laconic.compressors._base import unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._not_finite import require_all_finite
from laconic.compressors._quantizer import Quantizer, levels_of
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import GeometricGrid
from laconic.kernels import SegmentedInput, Stream, round_segments, round_to_levels
from laconic.messages import Group, Part


def _period(base: float, grid: Sequence[float] | None) -> tuple[float, ...]:
    if grid is not None:
        return tuple(float(level) for level in grid)
    if not base > 1.0:
        raise ValueError(f"the base of exponential rounding must exceed 1, got {base}")
    return (1.0, float(base))


def _ratios(period: tuple[float, ...]) -> list[float]:
    return [b / a for a, b in pairwise(period)]


class _GridRounding(Quantizer):
    """Rounding to the levels of a geometric grid: at random without bias, or to the nearest."""

    @abstractmethod
    def period(self) -> tuple[float, ...]:
        """The levels of one period of the grid."""

    def part(self, x: Tensor, draw: Stream) -> Part:
        """A sign and a level number for each coordinate."""
        grid, dtype = GeometricGrid(self.period()), accumulation_dtype(x.dtype)
        codes = round_to_levels(x, levels_of(grid, dtype, x.device), draw if self.random else None)
        return Part(d=x.shape[-1], values=codes, dtype=dtype, grid=grid)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        levels = levels_of(GeometricGrid(self.period()), one.kind.dtype, torch.device("cpu"))
        codes, finite = round_segments(inputs, levels, draw if self.random else None)
        require_all_finite(finite)
        return Group(one, codes)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number a code."""
        return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=GeometricGrid(self.period())))


@dataclass(frozen=True)
class UnbiasedRounding(_GridRounding):
    """Rounds each magnitude to one of its two neighbouring levels, so that the expectation is exact.

    "On Biased Compression", Section 2.2 (e): U(zeta) with zeta = sup (a/b + b/a + 2) / 4 over
    neighbouring levels a < b; (1/4)(b + 1/b + 2) for exponential levels of base b.

    Args:
        base: levels ``base^j`` for all integers j.
        grid: increasing positive levels instead of a base. The theory needs levels down to 0 and up to
            infinity, so they are one period that repeats geometrically, a_j (a_K / a_1)^m: ``(1, 1.5, 2)``
            stands for ..., 0.5, 0.75, 1, 1.5, 2, 3, 4, ...

    Raises:
        ValueError: for a base <= 1, or a grid of fewer than two levels or that does not increase.

    Example:
        >>> UnbiasedRounding(base=2.0).constants(10).zeta
        1.125
    """

    base: float = 2.0
    grid: Sequence[float] | None = None

    random = True

    def __post_init__(self) -> None:
        """Check the levels and make a grid hashable."""
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))
        GeometricGrid(self.period())

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """U(zeta) of Lemma 12 and Table 3, rows (e) and (e')."""
        ratios = _ratios(self.period())
        return unbiased(max((r + 1.0 / r + 2.0) / 4.0 for r in ratios))

    def period(self) -> tuple[float, ...]:
        """Powers of the base, or the levels given."""
        return _period(self.base, self.grid)


@dataclass(frozen=True)
class BiasedRounding(_GridRounding):
    """Rounds each magnitude to the nearest level; from the middle, up.

    "On Biased Compression", Section 2.2 (f) and Lemma 13: over neighbouring levels a < b,
    beta = sup 2b/(a+b), gamma = inf 2a/(a+b), alpha = gamma^2, delta = sup (a+b)^2/(4ab).

    Args:
        base: levels ``base^j`` for all integers j.
        grid: one period of levels instead, as for :class:`UnbiasedRounding`.

    Raises:
        ValueError: as for :class:`UnbiasedRounding`.

    Example:
        >>> BiasedRounding(base=2.0).compress(torch.tensor([1.4, -1.5, 100.0])).dense()
        tensor([  1.,  -2., 128.])
    """

    base: float = 2.0
    grid: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the levels and make a grid hashable."""
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))
        GeometricGrid(self.period())

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """Lemma 13; Table 3, row (f')."""
        ratios = _ratios(self.period())
        gamma = min(2.0 / (1.0 + r) for r in ratios)
        return Constants(
            alpha=gamma**2,
            beta=max(2.0 * r / (1.0 + r) for r in ratios),
            gamma=gamma,
            delta=max((1.0 + r) ** 2 / (4.0 * r) for r in ratios),
        )

    def period(self) -> tuple[float, ...]:
        """Powers of the base, or the levels given."""
        return _period(self.base, self.grid)


@dataclass(frozen=True)
class NaturalCompression(_GridRounding):
    """Unbiased rounding to powers of two: U(9/8), a sign and the exponent of each number.

    "On Biased Compression", Section 2.2 (g); Horváth et al., "Natural Compression for Distributed Deep
    Learning", 2019: 9 bits a float32 number, 12 a float64 one.

    Example:
        >>> NaturalCompression().constants(10).zeta
        1.125
    """

    random = True

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """U(9/8): Table 3, row (g)."""
        return unbiased(9.0 / 8.0)

    def period(self) -> tuple[float, ...]:
        """Powers of 2."""
        return (1.0, 2.0)
