"""Rounding each number to a level of a grid, at random or to the nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from laconic.compressors._base import unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._quantise import Quantiser, require_all_finite, rounded, rounded_columns
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import GeometricGrid
from laconic.kernels import SegmentedInput, Step, Stream, cast_segments
from laconic.messages import Group, Part


def _period(base: float, grid: Sequence[float] | None) -> tuple[float, ...]:
    if grid is not None:
        return tuple(float(level) for level in grid)
    if not base > 1.0:
        raise ValueError(f"the base of exponential rounding must exceed 1, got {base}")
    return (1.0, float(base))


def _ratios(period: tuple[float, ...]) -> list[float]:
    return [b / a for a, b in pairwise(period)]


@dataclass(frozen=True)
class UnbiasedRounding(Quantiser):
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
        GeometricGrid(_period(self.base, self.grid))

    def part(self, step: Step, draw: Stream) -> Part:
        """A sign and a level number for each coordinate."""
        return rounded(step, GeometricGrid(_period(self.base, self.grid)), draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return rounded_columns(one, inputs, draw)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """U(zeta) of Lemma 12 and Table 3, rows (e) and (e')."""
        ratios = _ratios(_period(self.base, self.grid))
        return unbiased(max((r + 1.0 / r + 2.0) / 4.0 for r in ratios))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number a code."""
        grid = GeometricGrid(_period(self.base, self.grid))
        return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=grid))


@dataclass(frozen=True)
class BiasedRounding(Quantiser):
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
        GeometricGrid(_period(self.base, self.grid))

    def part(self, step: Step, draw: Stream) -> Part:  # noqa: ARG002
        """A sign and a level number for each coordinate."""
        return rounded(step, GeometricGrid(_period(self.base, self.grid)), None)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        return rounded_columns(one, inputs, None)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """Lemma 13; Table 3, row (f')."""
        ratios = _ratios(_period(self.base, self.grid))
        gamma = min(2.0 / (1.0 + r) for r in ratios)
        return Constants(
            alpha=gamma**2,
            beta=max(2.0 * r / (1.0 + r) for r in ratios),
            gamma=gamma,
            delta=max((1.0 + r) ** 2 / (4.0 * r) for r in ratios),
        )

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number a code."""
        grid = GeometricGrid(_period(self.base, self.grid))
        return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=grid))


@dataclass(frozen=True)
class NaturalCompression(Quantiser):
    """Unbiased rounding to powers of two: U(9/8), a sign and the exponent of each number.

    "On Biased Compression", Section 2.2 (g); Horváth et al., "Natural Compression for Distributed Deep
    Learning", 2019: 9 bits a float32 number, 12 a float64 one.

    Example:
        >>> NaturalCompression().constants(10).zeta
        1.125
    """

    random = True

    def part(self, step: Step, draw: Stream) -> Part:
        """As ``UnbiasedRounding(base=2)``."""
        return UnbiasedRounding(2.0).part(step, draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return rounded_columns(one, inputs, draw)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """U(9/8): Table 3, row (g)."""
        return unbiased(9.0 / 8.0)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number a code."""
        grid = GeometricGrid(_period(2.0, None))
        return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=grid))


_UNIT_ROUNDOFF = {
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}


@dataclass(frozen=True)
class Cast(Quantiser):
    """Rounds each number to a narrower dtype, to the nearest and ties to even.

    The constants hold for numbers in the dtype's normal range, where the relative error is at most the
    unit roundoff u: beta = 1 + u, gamma = 1 - u, alpha = gamma^2, delta = 1/(1 - u^2). Larger numbers
    saturate at the dtype's largest.

    Args:
        dtype: torch.bfloat16, torch.float16 or torch.float32.

    Example:
        >>> Cast(torch.bfloat16).compress(torch.tensor([1.001, -1e30])).dense()[0]
        tensor(1.)
    """

    dtype: torch.dtype

    def __post_init__(self) -> None:
        """Refuse what is not a floating-point dtype that messages carry."""
        if self.dtype not in _UNIT_ROUNDOFF:
            raise ValueError(f"Cast takes {', '.join(map(str, _UNIT_ROUNDOFF))}, got {self.dtype}")

    def part(self, step: Step, draw: Stream) -> Part:  # noqa: ARG002
        """The rounded numbers."""
        most = min(torch.finfo(self.dtype).max, torch.finfo(step.dtype).max)
        values = torch.empty(step.x.shape, dtype=self.dtype, device=step.x.device)
        values.copy_(step.numbers().clamp(-most, most))
        return Part(d=step.d, values=values, dtype=self.dtype)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        values, finite = cast_segments(inputs, self.dtype)
        require_all_finite(finite)
        return Group(one, values)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """From the unit roundoff."""
        u = _UNIT_ROUNDOFF[self.dtype]
        return Constants(alpha=(1 - u) ** 2, beta=1 + u, gamma=1 - u, delta=1.0 / (1.0 - u * u))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:  # noqa: ARG002
        """Every number, in the narrower dtype."""
        return SegmentFormat(d, d, Kind(self.dtype))
