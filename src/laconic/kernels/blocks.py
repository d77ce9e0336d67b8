"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _loops() -> Any:
    # Imported here because numba takes longer to import than all the rest.
    from laconic.kernels._cpu import blocks

    return blocks


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
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return quantize_blocks_plainly(x, steps, block)
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()
    codes = torch.empty(x.shape, dtype=torch.int32)
    low = torch.empty(*x.shape[:-1], -(-x.shape[-1] // block))
    span = torch.empty_like(low)
    flat = (tensor.view(-1, tensor.shape[-1]).numpy() for tensor in (codes, low, span))
    _loops().quantize(rows, rows.view("i4"), steps, block, *flat)
    return codes, low, span


def quantize_blocks_plainly(x: Tensor, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of :func:`quantize_blocks`."""
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
    return torch.where(x < 0, -level, level), low, span


def dequantize_blocks(codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int) -> Tensor:
    """``sign(code) fl(low + fl(levels[|code|] span))``, with the span and low of each number's block.

    Args:
        codes: int32 (..., k).
        levels: by |code|, in span's dtype.
        span: (..., ceil(k / block)).
        low: as span.
        block: numbers a block.

    Returns:
        (..., k) in span's dtype.
    """
    if codes.device.type != "cpu" or span.dtype != torch.float32 or codes.dtype != torch.int32:
        return dequantize_blocks_plainly(codes, levels, span, low, block)
    numbers = torch.empty(codes.shape)
    rows = (t.detach().reshape(-1, t.shape[-1]).contiguous().numpy() for t in (span, low))
    _loops().dequantize(
        codes.detach().reshape(-1, codes.shape[-1]).contiguous().numpy(),
        levels.numpy(),
        *rows,
        block,
        numbers.view(-1, codes.shape[-1]).numpy(),
    )
    return numbers


def dequantize_blocks_plainly(codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int) -> Tensor:
    """The definition of :func:`dequantize_blocks`."""
    k = codes.shape[-1]
    spans, lows = (t.repeat_interleave(block, dim=-1)[..., :k] for t in (span, low))
    magnitude = lows + levels[codes.abs()] * spans
    return torch.where(codes < 0, -magnitude, magnitude)
