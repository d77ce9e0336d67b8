"""Rounding numbers to the levels of a grid: the part that all quantisers share."""

import torch
from torch import Tensor

from laconic.grids import Grid, level_table
from laconic.kernels import Purpose, Stream
from laconic.messages import Message, Part


def bracket(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Codes of the levels just below and just above each magnitude, |x| on a level counting as below.

    Where a row may span only so many levels (``grid.window``), what lies under the span is between 0
    and the span's lowest level. Above the highest level both codes are the highest.

    Args:
        x: (..., d), non-negative, in the accumulation dtype.

    Returns:
        Two int64 tensors (..., d).
    """
    table = level_table(grid, x.dtype, x.device)
    top = table.shape[0] - 1
    below = torch.searchsorted(table[1:].contiguous(), x.contiguous(), right=True)
    above = (below + 1).clamp(max=top)
    window = grid.window(x.dtype)
    if window is not None:
        base = (above.amax(dim=-1, keepdim=True) - window).clamp(min=0)
        under = below <= base
        below = torch.where(under, 0, below)
        above = torch.where(under, base + 1, above)
    return below, above


def round_randomly(x: Tensor, grid: Grid, draw: Stream) -> Tensor:
    """Codes of one of the two neighbouring levels, drawn so that the expected level is x.

    With levels a <= x <= b the code of b is taken where a uniform number u, a multiple of 2^-32, lies
    below ``fl(fl(x - a) / fl(b - a))``.

    Args:
        x: (..., d), non-negative, in the accumulation dtype.
    """
    below, above = bracket(x, grid)
    table = level_table(grid, x.dtype, x.device)
    low, high = table[below], table[above]
    gap = high - low
    share = torch.where(gap > 0, (x - low) / torch.where(gap > 0, gap, 1), 0)
    uniform = draw.uniform(x.shape[-1], Purpose.ROUNDING, x.device)
    return torch.where(uniform < share.to(torch.float64), above, below)


def round_to_nearest(x: Tensor, grid: Grid) -> Tensor:
    """Codes of the nearest levels; in the middle, of the upper one. x as for :func:`round_randomly`."""
    below, above = bracket(x, grid)
    table = level_table(grid, x.dtype, x.device)
    return torch.where(table[above] - x <= x - table[below], above, below)


def coded(x: Tensor, magnitudes: Tensor, grid: Grid, scale: Tensor | None = None) -> Message:
    """The message of codes with the signs of x.

    Args:
        x: (..., d), in the accumulation dtype.
        magnitudes: int64 (..., d), level numbers.
        scale: (..., 1) in x's dtype, or None.
    """
    codes = torch.where(x < 0, -magnitudes, magnitudes).to(torch.int32)
    return Message((Part(d=x.shape[-1], values=codes, dtype=x.dtype, grid=grid, scale=scale),))
