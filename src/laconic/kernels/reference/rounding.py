"""Rounding to the nearest of given levels, at random to one of the two neighbours, or to signs."""

import torch
from torch import Tensor

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.levels import Levels, base_below, bracket
from laconic.kernels.reference.philox import Purpose, uniform_reference
from laconic.kernels.tables import accumulation_dtype


def round_to_levels_reference(
    x: Tensor, levels: Levels, origin: Tensor | None, base: Tensor | None, scale: Tensor | None
) -> Tensor:
    """The definition of :func:`laconic.kernels.round_to_levels`; ``origin`` is that of its draw, or None."""
    x = x.to(accumulation_dtype(x.dtype))
    magnitudes = x.abs()
    if scale is not None:
        # A zero vector has no direction; its codes are 0 whatever it is divided by.
        magnitudes = (magnitudes / torch.where(scale > 0, scale, 1)).clamp(max=1)
    elif base is None:
        base = base_below(magnitudes.amax(dim=-1, keepdim=True), levels)
    level = _level_numbers(magnitudes, levels, origin, base)
    return torch.where(x < 0, -level, level).to(code_dtype(levels.top))


def _level_numbers(x: Tensor, levels: Levels, origin: Tensor | None, base: Tensor | None) -> Tensor:
    below, above = bracket(x, levels, base)
    low, high = levels.table[below], levels.table[above]
    if origin is None:
        return torch.where(high - x <= x - low, above, below)
    gap = high - low
    share = torch.where(gap > 0, (x - low) / torch.where(gap > 0, gap, 1), 0)
    uniform = uniform_reference(origin, x.shape[-1], Purpose.ROUNDING)
    return torch.where(uniform < share.to(torch.float64), above, below)


def round_to_signs_reference(x: Tensor) -> Tensor:
    """The definition of :func:`laconic.kernels.round_to_signs`."""
    return torch.where(x < 0, -1, 1).to(code_dtype(1))
