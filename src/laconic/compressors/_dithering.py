"""Dithering: random rounding of each number relative to a norm of the vector; and its one-level kin."""

import math
from dataclasses import dataclass

import torch

from laconic.compressors._base import unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._quantise import (
    Quantiser,
    as_scale,
    dithered,
    dithered_columns,
    require_finite_sums,
)
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import ExponentialLevels, Grid, Signs, UniformLevels
from laconic.kernels import (
    SegmentedInput,
    Step,
    Stream,
    mean_magnitude,
    mean_magnitudes,
    round_to_signs,
    sign_segments,
)
from laconic.messages import Group, Part


def _structure(d: int, dtype: torch.dtype, grid: Grid) -> SegmentFormat:
    return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=grid, scale=True))


def _check(levels: int, p: float) -> None:
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= 2**20:
        raise ValueError(f"levels must be an int from 1 to 2^20, got {levels!r}")
    if not p >= 1:
        raise ValueError(f"p must be at least 1 (math.inf for the largest magnitude), got {p}")


def _exponential_zeta(d: int, base: float, levels: int, p: float) -> float:
    lowest: float = d ** (1.0 / min(p, 2.0)) * base ** (1.0 - levels)
    return (base + 1.0 / base + 2.0) / 4.0 + lowest * min(1.0, lowest)


@dataclass(frozen=True)
class ExponentialDithering(Quantiser):
    """``|x|_p sign(x_i) xi(|x_i| / |x|_p)``: xi rounds at random to the levels 0, b^(1-s), ..., 1/b, 1.

    "On Biased Compression", Section 2.2 (h) and Lemma 15: U(zeta_b) with
    zeta_b = (b + 1/b + 2)/4 + l min(1, l), l = d^(1/r) b^(1-s), r = min(p, 2).

    Args:
        base: b > 1.
        levels: s >= 1.
        p: the norm, 1 to infinity.

    Example:
        >>> ExponentialDithering(base=2.0, levels=8, p=math.inf).constants(100).zeta
        1.131103515625
    """

    base: float = 2.0
    levels: int = 8
    p: float = 2.0

    random = True

    def __post_init__(self) -> None:
        """Check base, levels and norm."""
        if not (self.base > 1.0 and math.isfinite(self.base)):
            raise ValueError(f"the base must exceed 1, got {self.base}")
        _check(self.levels, self.p)
        # Below this the lowest level would be subnormal in float32.
        if (self.levels - 1) * math.log2(self.base) > 126:
            raise ValueError(f"{self.levels} levels of base {self.base} reach below 2^-126; use fewer levels")

    def part(self, step: Step, draw: Stream) -> Part:
        """The norm, and a sign and a level number for each coordinate."""
        return dithered(step, self.p, ExponentialLevels(self.base, self.levels), draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return dithered_columns(one, inputs, self.p, draw)

    def constants(self, d: int) -> Constants:
        """U(zeta_b): Table 3, row (h)."""
        return unbiased(_exponential_zeta(d, self.base, self.levels, self.p))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, ExponentialLevels(self.base, self.levels))


@dataclass(frozen=True)
class NaturalDithering(Quantiser):
    """Exponential dithering with base 2; the norm is not compressed.

    "On Biased Compression", Section 2.2 (i): U(zeta_2).

    Args:
        levels: s >= 1.
        p: the norm, 1 to infinity.

    Example:
        >>> NaturalDithering(levels=8, p=math.inf).constants(100).zeta
        1.131103515625
    """

    levels: int = 8
    p: float = 2.0

    random = True

    def __post_init__(self) -> None:
        """Check levels and norm."""
        ExponentialDithering(2.0, self.levels, self.p)

    def part(self, step: Step, draw: Stream) -> Part:
        """As ``ExponentialDithering(2, levels, p)``."""
        return ExponentialDithering(2.0, self.levels, self.p).part(step, draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return dithered_columns(one, inputs, self.p, draw)

    def constants(self, d: int) -> Constants:
        """U(zeta_2): Table 3, row (i)."""
        return unbiased(_exponential_zeta(d, 2.0, self.levels, self.p))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, ExponentialLevels(2.0, self.levels))


@dataclass(frozen=True)
class RandomDithering(Quantiser):
    """Dithering with s equally spaced levels: QSGD for p = 2.

    Alistarh et al., "QSGD", 2017: zeta = 1 + min(d / s^2, sqrt(d) / s) for p = 2. For any p, with
    r = min(p, 2): zeta = 1 + min(d^(2/r) / s^2, d^(1/r) / s), because the variance is at most |x|_p^2 / s^2
    a coordinate, and at most |x|_p |x|_1 / s in all.

    Args:
        levels: s >= 1.
        p: the norm, 1 to infinity.

    Example:
        >>> RandomDithering(levels=10, p=2).constants(100).zeta
        2.0
    """

    levels: int = 8
    p: float = 2.0

    random = True

    def __post_init__(self) -> None:
        """Check levels and norm."""
        _check(self.levels, self.p)

    def part(self, step: Step, draw: Stream) -> Part:
        """The norm, and a sign and a level number for each coordinate."""
        return dithered(step, self.p, UniformLevels(self.levels), draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return dithered_columns(one, inputs, self.p, draw)

    def constants(self, d: int) -> Constants:
        """U(1 + min(d^(2/r) / s^2, d^(1/r) / s))."""
        root, s = d ** (1.0 / min(self.p, 2.0)), self.levels
        return unbiased(1.0 + min(root**2 / s**2, root / s))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, UniformLevels(self.levels))


@dataclass(frozen=True)
class Ternary(Quantiser):
    """``|x|_inf sign(x_i)`` with probability |x_i| / |x|_inf, else 0: TernGrad.

    E|C(x)|^2 = |x|_inf |x|_1 exactly, so zeta = sup |x|_inf |x|_1 / |x|_2^2 = (1 + sqrt d) / 2, attained
    by one coordinate 1 and the others 1 / (1 + sqrt d).

    Example:
        >>> Ternary().constants(100).zeta
        5.5
    """

    random = True

    def part(self, step: Step, draw: Stream) -> Part:
        """The largest magnitude, and -1, 0 or 1 for each coordinate."""
        return dithered(step, math.inf, UniformLevels(1), draw)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        return dithered_columns(one, inputs, math.inf, draw)

    def constants(self, d: int) -> Constants:
        """U((1 + sqrt d) / 2)."""
        return unbiased((1.0 + math.sqrt(d)) / 2.0)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, UniformLevels(1))


@dataclass(frozen=True)
class ScaledSign(Quantiser):
    """``(|x|_1 / d) sign(x)``, the sign of 0 being plus: one bit a coordinate.

    |C(x)|^2 = <C(x), x> = |x|_1^2 / d >= |x|_2^2 / d, so B1(1/d, 1), B2(1/d, 1) and B3(d).

    Example:
        >>> ScaledSign().compress(torch.tensor([3.0, -1.0])).dense()
        tensor([ 2., -2.])
    """

    keeps_zeros = False

    def part(self, step: Step, draw: Stream) -> Part:  # noqa: ARG002
        """The mean magnitude and a sign for each coordinate."""
        scale = as_scale(mean_magnitude(step), step.dtype)
        return Part(d=step.d, values=round_to_signs(step), dtype=step.dtype, grid=Signs(), scale=scale)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        means = mean_magnitudes(inputs)
        require_finite_sums(means, inputs)
        return Group(one, sign_segments(inputs), scale=as_scale(means, one.kind.dtype)[..., 0])

    def constants(self, d: int) -> Constants:
        """B1(1/d, 1), B2(1/d, 1), B3(d)."""
        return Constants(alpha=1.0 / d, beta=1.0, gamma=1.0 / d, delta=float(d))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, Signs())
