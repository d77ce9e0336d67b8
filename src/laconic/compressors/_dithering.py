"""Dithering: random rounding of each number relative to a norm of the vector; ternary and scaled sign."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._not_finite import require_finite_sums
from laconic.compressors._quantizer import Quantizer, as_scale, levels_of
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import ExponentialLevels, Grid, Signs, UniformLevels
from laconic.kernels import (
    SegmentedInput,
    Stream,
    mean_magnitude,
    mean_magnitudes,
    norm,
    norms,
    round_segments,
    round_to_levels,
    round_to_signs,
    sign_segments,
)
from laconic.messages import Group, Part


def _structure(d: int, dtype: torch.dtype, grid: Grid) -> SegmentFormat:
    return SegmentFormat(d, d, Kind(accumulation_dtype(dtype), grid=grid, has_scale=True))


def _check(levels: int, p: float) -> None:
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= 2**20:
        raise ValueError(f"levels must be an int from 1 to 2^20, got {levels!r}")
    if not p >= 1:
        raise ValueError(f"p must be at least 1 (math.inf for the largest magnitude), got {p}")


def _exponential_zeta(d: int, base: float, levels: int, p: float) -> float:
    lowest: float = d ** (1.0 / min(p, 2.0)) * base ** (1.0 - levels)
    return (base + 1.0 / base + 2.0) / 4.0 + lowest * min(1.0, lowest)


class _Dithering(Quantizer):
    """Random rounding without bias of magnitudes relative to their p-norm."""

    random = True

    @abstractmethod
    def grid_and_norm(self) -> tuple[Grid, float]:
        """The levels, and p."""

    def part(self, x: Tensor, draw: Stream) -> Part:
        """The norm, and a sign and a level number for each coordinate."""
        grid, p = self.grid_and_norm()
        dtype = accumulation_dtype(x.dtype)
        scale = as_scale(norm(x, p), dtype)
        codes = round_to_levels(x, levels_of(grid, dtype, x.device), draw, scale=scale)
        return Part(d=x.shape[-1], values=codes, dtype=dtype, grid=grid, scale=scale)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """As :meth:`part`, of all segments."""
        grid, p = self.grid_and_norm()
        found = norms(inputs, p)
        require_finite_sums(found, inputs)
        scale = as_scale(found, one.kind.dtype)[..., 0]
        levels = levels_of(grid, one.kind.dtype, torch.device("cpu"))
        codes, _ = round_segments(inputs, levels, draw, scale=scale)
        return Group(one, codes, scale=scale)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A scale, and every number a code."""
        return _structure(d, dtype, self.grid_and_norm()[0])


@dataclass(frozen=True)
class ExponentialDithering(_Dithering):
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

    def __post_init__(self) -> None:
        """Check base, levels and norm."""
        if not (self.base > 1.0 and math.isfinite(self.base)):
            raise ValueError(f"the base must exceed 1, got {self.base}")
        _check(self.levels, self.p)
        # Below this the lowest level would be subnormal in float32.
        if (self.levels - 1) * math.log2(self.base) > 126:
            raise ValueError(f"{self.levels} levels of base {self.base} reach below 2^-126; use fewer levels")

    def constants(self, d: int) -> Constants:
        """U(zeta_b): Table 3, row (h)."""
        return unbiased(_exponential_zeta(d, self.base, self.levels, self.p))

    def grid_and_norm(self) -> tuple[Grid, float]:
        """Powers of the base."""
        return ExponentialLevels(self.base, self.levels), self.p


@dataclass(frozen=True)
class NaturalDithering(_Dithering):
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

    def __post_init__(self) -> None:
        """Check levels and norm."""
        ExponentialDithering(2.0, self.levels, self.p)

    def constants(self, d: int) -> Constants:
        """U(zeta_2): Table 3, row (i)."""
        return unbiased(_exponential_zeta(d, 2.0, self.levels, self.p))

    def grid_and_norm(self) -> tuple[Grid, float]:
        """Powers of 2."""
        return ExponentialLevels(2.0, self.levels), self.p


@dataclass(frozen=True)
class RandomDithering(_Dithering):
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

    def __post_init__(self) -> None:
        """Check levels and norm."""
        _check(self.levels, self.p)

    def constants(self, d: int) -> Constants:
        """U(1 + min(d^(2/r) / s^2, d^(1/r) / s))."""
        root, s = d ** (1.0 / min(self.p, 2.0)), self.levels
        return unbiased(1.0 + min(root**2 / s**2, root / s))

    def grid_and_norm(self) -> tuple[Grid, float]:
        """Equally spaced levels."""
        return UniformLevels(self.levels), self.p


@dataclass(frozen=True)
class Ternary(_Dithering):
    """``|x|_inf sign(x_i)`` with probability |x_i| / |x|_inf, else 0: TernGrad.

    E|C(x)|^2 = |x|_inf |x|_1 exactly, so zeta = sup |x|_inf |x|_1 / |x|_2^2 = (1 + sqrt d) / 2, attained
    by one coordinate 1 and the others 1 / (1 + sqrt d).

    Example:
        >>> Ternary().constants(100).zeta
        5.5
    """

    def constants(self, d: int) -> Constants:
        """U((1 + sqrt d) / 2)."""
        return unbiased((1.0 + math.sqrt(d)) / 2.0)

    def grid_and_norm(self) -> tuple[Grid, float]:
        """One level, and the largest magnitude."""
        return UniformLevels(1), math.inf


@dataclass(frozen=True)
class ScaledSign(Quantizer):
    """``(|x|_1 / d) sign(x)``, the sign of 0 being plus: one bit a coordinate.

    |C(x)|^2 = <C(x), x> = |x|_1^2 / d >= |x|_2^2 / d, so B1(1/d, 1), B2(1/d, 1) and B3(d).

    Example:
        >>> ScaledSign().compress(torch.tensor([3.0, -1.0])).dense()
        tensor([ 2., -2.])
    """

    keeps_zeros = False
    joint_on_device = True

    def part(self, x: Tensor, draw: Stream) -> Part:  # noqa: ARG002
        """The mean magnitude and a sign for each coordinate."""
        dtype = accumulation_dtype(x.dtype)
        scale = as_scale(mean_magnitude(x), dtype)
        return Part(d=x.shape[-1], values=round_to_signs(x), dtype=dtype, grid=Signs(), scale=scale)

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
