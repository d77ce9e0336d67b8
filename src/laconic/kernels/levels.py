"""Levels that magnitudes are rounded to, and the index by which loops find a magnitude's level."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BUCKETS = 1 << 16


class Index(NamedTuple):
    """What finds a number's level at once, for compiled loops.

    ``bits`` are the levels 1, 2, ... as integers, and ``middles`` half of each, at least 1. Where the levels
    are successive powers of two, a normal number with exponent field e lies at or above level e + offset.
    Else a number's bits, shifted right, say its bucket, counted from the lowest level's: ``starts`` is the
    number of levels in the buckets before, ``edges`` the level inside or infinity; where ``single`` is False,
    a bucket of normal numbers may hold several.
    """

    table: npt.NDArray[Any]
    bits: npt.NDArray[Any]
    middles: npt.NDArray[Any]
    top: int
    smallest: int
    powers: bool
    width: int
    offset: int
    single: bool
    shift: int
    lowest: int
    last: int
    starts: npt.NDArray[np.int32]
    edges: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Levels:
    """What the codes 0, 1, ..., L stand for.

    Args:
        table: 0 and then L positive levels, ascending: float32 or float64 (L + 1,).
        window: how many levels below a row's largest may stand in that row; None: all.

    Example:
        >>> Levels(torch.tensor([0.0, 0.5, 1.0, 2.0])).top
        3
    """

    table: Tensor
    window: int | None = None

    @property
    def top(self) -> int:
        """L."""
        return self.table.shape[0] - 1

    @cached_property
    def lazy(self) -> bool:
        """Whether the window cuts off nothing but numbers below the normal range."""
        if self.window is None or not self.index.powers:
            return False
        return self.top <= self.window or bool(self.index.bits[self.top - self.window] <= self.index.smallest)

    @cached_property
    def index(self) -> Index:
        """What finds levels at once."""
        return _index(self.table.cpu().numpy())


def _index(table: npt.NDArray[Any]) -> Index:
    levels = table[1:]
    width = 23 if table.dtype == np.float32 else 52
    bits: npt.NDArray[Any] = levels.view(np.int32 if width == 23 else np.int64)
    middles = np.maximum((levels / 2).view(bits.dtype), 1)
    mantissas, exponents = np.frexp(levels)
    powers = bool((mantissas == 0.5).all() and (np.diff(exponents) == 1).all())
    shift = width + 3
    while True:
        shift -= 1
        buckets = bits >> shift
        normal = buckets[bits >= 1 << width]
        single = len(np.unique(normal)) == len(normal)
        # One bit more could double the number of buckets.
        if single or 2 * (int(buckets[-1]) - int(buckets[0]) + 2) > _BUCKETS:
            break
    numbers = np.arange(buckets[0], buckets[-1] + 2)
    starts = np.searchsorted(buckets, numbers).astype(np.int32)
    edges = np.full(len(numbers), np.inf, table.dtype)
    edges[buckets - buckets[0]] = levels
    return Index(
        table=np.append(table, table[-1]),
        bits=bits,
        middles=middles,
        top=len(levels),
        smallest=1 << width,
        powers=powers,
        width=width,
        offset=len(levels) - int(bits[-1] >> width),
        single=single,
        shift=shift,
        lowest=int(buckets[0]),
        last=len(numbers) - 2,
        starts=starts,
        edges=edges,
    )


def bracket(x: Tensor, levels: Levels, base: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes of the levels just below and just above each magnitude, |x| on a level counting as below.

    What lies below level ``base + 1`` is between 0 and that level. Above the highest level both codes are
    the highest.

    Args:
        x: (..., d), non-negative, in the levels' dtype.
        levels: their window is not looked at.
        base: int64 (..., 1), or None for 0.

    Returns:
        Two int64 tensors (..., d).
    """
    below = torch.searchsorted(levels.table[1:].contiguous(), x.contiguous(), right=True)
    above = (below + 1).clamp(max=levels.top)
    if base is not None:
        under = below <= base
        below = torch.where(under, 0, below)
        above = torch.where(under, base + 1, above)
    return below, above


def base_below(largest: Tensor, levels: Levels) -> Tensor | None:
    """The level number up to which a row may only hold 0, given its largest magnitude: int64 (..., 1).

    None without a window.
    """
    if levels.window is None:
        return None
    _, above = bracket(largest, levels)
    return (above - levels.window).clamp(min=0)
