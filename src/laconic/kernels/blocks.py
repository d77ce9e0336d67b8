"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

import torch
from torch import Tensor


def quantize_blocks(x: Tensor, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of the nearest of ``low + j span / steps``, j = 0 ... steps, with the signs of x.

    With a = |x|, the code is ``sign (1 + trunc(fl(fl(fl(fl(a - low) / span) steps) + 1/2)))``. The span is
    ``fl(highest - low)``, one step less where ``low + span`` would be infinite.

    Args:
        x: (..., d), finite, float32 or float64.
        steps: j's largest value.
        block: numbers a block; the last may hold fewer.

    Returns:
        int32 codes (..., d); low and span, (..., ceil(d / block)) in x's dtype.

    Example:
        >>> codes, low, span = quantize_blocks(torch.tensor([1.0, -2.1, 3.9, 4.0]), 3, 1024)
        >>> codes, float(low), float(span)
        (tensor([ 1, -2,  4,  4], dtype=torch.int32), 1.0, 3.0)
    """
    d = x.shape[-1]
    blocks = -(-d // block)
    fill = blocks * block - d
    magnitude = x.abs()
    lowest = torch.nn.functional.pad(magnitude, (0, fill), value=torch.inf).unflatten(-1, (blocks, block))
    padded = torch.nn.functional.pad(magnitude, (0, fill)).unflatten(-1, (blocks, block))
    low = lowest.amin(dim=-1)
    span = padded.amax(dim=-1) - low
    span = torch.where((low + span).isinf(), torch.nextafter(span, torch.zeros_like(span)), span)
    share = (padded - low.unsqueeze(-1)) / torch.where(span > 0, span, 1).unsqueeze(-1)
    level = (share.clamp(0, 1) * steps + 0.5).trunc().flatten(-2)[..., :d].to(torch.int32) + 1
    return torch.where(x < 0, -level, level), low, span
