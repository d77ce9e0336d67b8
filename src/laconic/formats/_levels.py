"""The levels of grids, as numbers that are the same on every platform.

They are computed by repeated multiplication or division in float64, then rounded to the accumulation dtype,
never by a power function, so that they are the same numbers on every platform.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=64)
def geometric_levels(period: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """All levels that a period makes and the dtype can hold, ascending: (L,)."""
    info = torch.finfo(dtype)
    # Beside the dtype's range, so that rounding to it decides what survives at either end.
    low, high = info.smallest_normal * info.eps / 2, info.max
    ratio = period[-1] / period[0]
    if period[0] == 1.0:
        ratio = period[-1]
    found: set[float] = set()
    for first in period[:-1]:
        level = first
        while 0.0 < level <= high:
            found.add(level)
            level *= ratio
        level = first / ratio
        while low <= level:
            if level <= high:
                found.add(level)
            if level / ratio == level:
                break
            level /= ratio
    held = np.unique(torch.tensor(sorted(found), dtype=torch.float64, device="cpu").to(dtype).numpy())
    return torch.from_numpy(held[(held > 0) & np.isfinite(held)])


@lru_cache(maxsize=64)
def exponential_levels(base: float, count: int, dtype: torch.dtype) -> Tensor:
    """``base^(1-count), ..., 1/base, 1``: (count,)."""
    levels = [1.0]
    for _ in range(count - 1):
        levels.append(levels[-1] / base)
    return torch.tensor(levels[::-1], dtype=torch.float64, device="cpu").to(dtype)
