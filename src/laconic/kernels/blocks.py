"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._choice import compiled_or_plain, on_gpu
from laconic.kernels._cpu.threads import in_threads
from laconic.kernels._narrow import CODE_DTYPES, by_width, code_dtype, code_room
from laconic.kernels.steps import Row, Step, cuts

_TILE = 4096
"""The longest block that a GPU's program holds at once."""


def quantize_blocks(x: Tensor | Step, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of the nearest of ``low + j span / steps``, j = 0 ... steps, with the signs of x.

    With a = |x|, the code is ``sign (1 + trunc(fl(fl(fl(fl(a - low) / span) steps) + 1/2)))``. The span is
    ``fl(highest - low)``, one step less where ``low + span`` would be infinite.

    Args:
        x: (..., d), finite, float32 or float64; or a step, whose ``out`` gets ``fl(weight value)`` added,
            the value as :func:`dequantize_blocks` finds it.
        steps: j's largest value.
        block: numbers a block; the last may hold fewer.

    Returns:
        Codes (..., d), int8 up to 126 steps, else int16 or int32; low and span, (..., ceil(d / block)) in
        x's dtype.

    Example:
        >>> codes, low, span = quantize_blocks(torch.tensor([1.0, -2.1, 3.9, 4.0]), 3, 1024)
        >>> codes, float(low), float(span)
        (tensor([ 1, -2,  4,  4], dtype=torch.int8), 1.0, 3.0)
    """
    step = x if isinstance(x, Step) else Step(x)
    if block <= _TILE and step.out is None and (gpu := on_gpu(step.x)) is not None:
        return cast(tuple[Tensor, Tensor, Tensor], gpu.quantize_blocks(step.numbers(), steps, block))
    if not step.compiled:
        return _quantize_plainly(step, steps, block)
    return compiled_or_plain(
        "blocks",
        lambda loops: _quantize_rows(loops, step, steps, block),
        lambda: _quantize_plainly(step, steps, block),
    )


def _quantize_plainly(step: Step, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    codes, low, span = quantize_blocks_plainly(step.numbers(), steps, block)
    if step.out is not None:
        levels = torch.arange(-1, steps + 1, dtype=span.dtype, device=span.device).clamp(min=0) / steps
        step.add(dequantize_blocks_plainly(codes, levels, span, low, block))
    return codes, low, span


def _quantize_rows(loops: Any, step: Step, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    codes = code_room(step.x.shape, steps + 1)
    blocks = -(-step.d // block)
    low = torch.empty(*step.batch, blocks, dtype=step.dtype)
    span = torch.empty_like(low)
    flat = (t.view(-1, t.shape[-1]).numpy() for t in (codes, low, span))
    for row, own, *extremes in zip(step.rows(), *flat, strict=True):
        out = (by_width(own), *extremes)
        firsts = [blocks * share // len(cuts(row.size)) for share in range(len(cuts(row.size)) + 1)]

        def work(share: int, row: Row = row, out: Any = out, firsts: list[int] = firsts) -> None:
            loops.quantize(row, steps, block, firsts[share], firsts[share + 1], *out)

        in_threads(work, len(firsts) - 1)
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
    return torch.where(x < 0, -level, level).to(code_dtype(steps + 1)), low, span


def dequantize_blocks(codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int) -> Tensor:
    """``sign(code) fl(low + fl(levels[|code|] span))``, with the span and low of each number's block.

    Args:
        codes: of a signed integer dtype, (..., k).
        levels: by |code|, in span's dtype.
        span: (..., ceil(k / block)).
        low: as span.
        block: numbers a block.

    Returns:
        (..., k) in span's dtype.
    """
    if (gpu := on_gpu(codes)) is not None:
        return cast(Tensor, gpu.dequantize_blocks(codes, levels, span, low, block))
    if codes.device.type != "cpu" or span.dtype != torch.float32 or codes.dtype not in CODE_DTYPES:
        return dequantize_blocks_plainly(codes, levels, span, low, block)
    return compiled_or_plain(
        "blocks",
        lambda loops: _dequantize_rows(loops, codes, levels, span, low, block),
        lambda: dequantize_blocks_plainly(codes, levels, span, low, block),
    )


def _dequantize_rows(
    loops: Any, codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int
) -> Tensor:
    numbers = torch.from_numpy(np.empty(codes.shape, np.float32))
    rows = (t.detach().reshape(-1, t.shape[-1]).contiguous().numpy() for t in (span, low))
    loops.dequantize(
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
    magnitude = lows + levels[codes.to(torch.int64).abs()] * spans
    return torch.where(codes < 0, -magnitude, magnitude)
