"""Grids of levels: what quantized values are rounded to, and how many symbols that takes.

A code is a sign times a level number; level 0 is the value 0.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from laconic.formats._levels import exponential_levels, geometric_levels

_MAX_LEVELS = 1 << 20
_MAX_RATIO = 2.0**64


@dataclass(frozen=True)
class Grid(ABC):
    """Levels for codes: a tag and the fields as numbers describe it on the wire."""

    tag: ClassVar[int]
    """The kind of grid."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the kind needs to be built again: its fields."""
        return tuple(float(getattr(self, field.name)) for field in fields(self))

    @abstractmethod
    def levels(self, dtype: torch.dtype) -> Tensor:
        """The positive levels, ascending: float32 or float64 (L,) on the CPU."""

    @abstractmethod
    def symbols(self, dtype: torch.dtype) -> int:
        """Number of codes that can stand in one row."""

    def window(self, dtype: torch.dtype) -> int | None:  # noqa: ARG002
        """How many levels below a row's largest may stand in that row; None, the default: all."""
        return None


@dataclass(frozen=True)
class GeometricGrid(Grid):
    """Increasing positive levels that repeat geometrically towards 0 and infinity.

    The given levels a_1 < ... < a_K are one period: with r = a_K / a_1 the grid is {a_j r^m}, m over all
    integers, cut to what the dtype can hold. ``(1, 2)`` gives the powers of two, ``(1, 1.25, 1.5, 1.75, 2)``
    floating-point numbers with two fraction bits. Above the largest level values saturate.

    A row's codes span at most ``2^w - 1`` levels, 2^w being the largest power of two up to the number of
    levels; what lies lower rounds to 0 or to the lowest level of the span. For powers of two in float32
    that is 255 levels, 8 bits: what is lost lies below 2^-254 of the row's largest number.
    """

    period: tuple[float, ...]

    tag: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse what is not an increasing sequence of at least two positive finite levels."""
        p = self.period
        if len(p) < 2 or not all(math.isfinite(a) and a > 0 for a in p):
            raise ValueError(f"a grid needs at least two positive finite levels, got {p}")
        if any(b <= a for a, b in pairwise(p)):
            raise ValueError(f"the levels of a grid must increase, got {p}")
        ratio = p[-1] / p[0]
        if ratio > _MAX_RATIO:
            raise ValueError(f"the grid {p} is too coarse: its levels are over 2^64 apart")
        if ratio == 1.0 or 1500 * math.log(2) / math.log(ratio) * (len(p) - 1) > _MAX_LEVELS:
            raise ValueError(f"the grid {p} is too fine: it has over 2^20 levels; use larger steps")

    @property
    def parameters(self) -> tuple[float, ...]:
        """The period's levels."""
        return self.period

    def levels(self, dtype: torch.dtype) -> Tensor:
        """All positive levels that ``dtype`` can hold, ascending."""
        return geometric_levels(self.period, dtype)

    def window(self, dtype: torch.dtype) -> int | None:
        """How many levels a row may span."""
        return _span(self, dtype)

    def symbols(self, dtype: torch.dtype) -> int:
        """Zero, and every level of a row's span with either sign."""
        return 2 * _span(self, dtype) + 1


@dataclass(frozen=True)
class ExponentialLevels(Grid):
    """The levels ``base^(1-count), ..., 1/base, 1`` of exponential dithering."""

    base: float
    count: int

    tag: ClassVar[int] = 2

    def levels(self, dtype: torch.dtype) -> Tensor:
        """The levels, ascending to 1."""
        return exponential_levels(self.base, self.count, dtype)

    def symbols(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """Zero and each level with either sign."""
        return 2 * self.count + 1


@dataclass(frozen=True)
class UniformLevels(Grid):
    """The levels ``1/count, 2/count, ..., 1`` of random dithering."""

    count: int

    tag: ClassVar[int] = 3

    def levels(self, dtype: torch.dtype) -> Tensor:
        """The levels, ascending to 1."""
        return torch.arange(1, self.count + 1, dtype=dtype, device="cpu") / self.count

    def symbols(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """Zero and each level with either sign."""
        return 2 * self.count + 1


@dataclass(frozen=True)
class Signs(Grid):
    """The one level 1 with a sign, never 0: one bit a value."""

    tag: ClassVar[int] = 4

    def levels(self, dtype: torch.dtype) -> Tensor:
        """The level 1."""
        return torch.ones(1, dtype=dtype, device="cpu")

    def symbols(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """Plus and minus."""
        return 2


@dataclass(frozen=True)
class BlockLevels(Grid):
    """The levels ``0, 1/L, ..., 1``, L = 2^(bits-1) - 1; 0 is a level with a sign, there is no code 0.

    What they are multiplied by and added to belongs to a block of values.
    """

    bits: int

    tag: ClassVar[int] = 5

    def levels(self, dtype: torch.dtype) -> Tensor:
        """L + 1 levels from 0 to 1."""
        steps = (1 << (self.bits - 1)) - 1
        return torch.arange(steps + 1, dtype=dtype, device="cpu") / steps

    def symbols(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """Each level with either sign."""
        return 1 << self.bits


@dataclass(frozen=True)
class ClippedPowers(Grid):
    """The powers of two, of which a row spans only ``2^bits - 1`` beside 0."""

    bits: int

    tag: ClassVar[int] = 6

    def levels(self, dtype: torch.dtype) -> Tensor:
        """All powers of two that ``dtype`` can hold, ascending."""
        return geometric_levels((1.0, 2.0), dtype)

    def window(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """How many levels a row may span."""
        return (1 << self.bits) - 1

    def symbols(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        """Zero, and every level of a row's span with either sign."""
        return (2 << self.bits) - 1


def grid_of(tag: int, parameters: tuple[float, ...]) -> Grid:
    """The grid that a tag and parameters describe; ValueError where they describe none."""
    if tag == 1:
        return GeometricGrid(parameters)
    if tag == 2 and len(parameters) == 2 and parameters[0] > 1 and _is_count(parameters[1], _MAX_LEVELS):
        return ExponentialLevels(parameters[0], int(parameters[1]))
    if tag == 3 and len(parameters) == 1 and _is_count(parameters[0], _MAX_LEVELS):
        return UniformLevels(int(parameters[0]))
    if tag == 4 and not parameters:
        return Signs()
    if tag == 5 and parameters in [(float(bits),) for bits in range(2, 9)]:
        return BlockLevels(int(parameters[0]))
    if tag == 6 and parameters in [(float(bits),) for bits in range(2, 8)]:
        return ClippedPowers(int(parameters[0]))
    raise ValueError(f"no grid has tag {tag} and parameters {parameters}")


def _is_count(number: float, largest: int) -> bool:
    return 1 <= number <= largest and number == int(number)


@lru_cache(maxsize=64)
def level_table(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values of codes 0, 1, ..., L on a device: 0, then the grid's levels."""
    levels = grid.levels(dtype)
    return torch.cat((torch.zeros(1, dtype=dtype, device="cpu"), levels)).to(device)


@lru_cache(maxsize=64)
def signed_table(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values of codes -L, ..., -1, 0, 1, ..., L on a device."""
    levels = level_table(grid, dtype, device)
    return torch.cat((-levels[1:].flip(0), levels))


@lru_cache(maxsize=64)
def _span(grid: GeometricGrid, dtype: torch.dtype) -> int:
    return (1 << ((len(grid.levels(dtype)) + 1).bit_length() - 1)) - 1
