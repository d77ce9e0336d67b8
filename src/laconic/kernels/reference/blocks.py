"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

import torch
from torch import Tensor

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.tables import accumulation_dtype


def quantize_blocks_reference(x: Tensor, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of :func:`laconic.kernels.quantize_blocks`."""
    x = x.to(accumulation_dtype(x.dtype))
    d = x.shape[-1]
    blocks = -(-d // block)
    fill = blocks * block - d
    magnitude = x.abs()
    shape = (*x.shape[:-1], blocks, block)
    padded = torch.nn.functional.pad(magnitude, (0, fill)).reshape(shape)
    low = torch.nn.functional.pad(magnitude, (0, fill), value=torch.inf).reshape(shape).amin(dim=-1)
    span = padded.amax(dim=-1) - low
    span = torch.where((low + span).isinf(), torch.nextafter(span, torch.zeros_like(span)), span)
    share = (padded - low.unsqueeze(-1)) / torch.where(span > 0, span, 1).unsqueeze(-1)
    level = (share.clamp(0, 1) * steps + 0.5).trunc().flatten(-2)[..., :d].to(torch.int32) + 1
    return torch.where(x < 0, -level, level).to(code_dtype(steps + 1)), low, span


def dequantize_blocks_reference(
    codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int
) -> Tensor:
    """The definition of :func:`laconic.kernels.dequantize_blocks`."""
    k = codes.shape[-1]
    spans, lows = (t.repeat_interleave(block, dim=-1)[..., :k] for t in (span, low))
    magnitude = lows + levels[codes.to(torch.int64).abs()] * spans
    return torch.where(codes < 0, -magnitude, magnitude)
