"""Numbers rounded to a narrower dtype."""

import torch
from torch import Tensor

from laconic.kernels.tables import accumulation_dtype


def cast_reference(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The definition of :func:`laconic.kernels.cast_segments` for one segment."""
    wide = accumulation_dtype(x.dtype)
    most = largest_cast(wide, dtype)
    return x.to(wide).clamp(-most, most).to(dtype)


def largest_cast(wide: torch.dtype, dtype: torch.dtype) -> float:
    """The largest number that both dtypes hold."""
    return min(torch.finfo(dtype).max, torch.finfo(wide).max)
