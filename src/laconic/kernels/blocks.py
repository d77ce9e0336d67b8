"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels._narrow import CODE_DTYPES, by_width, code_dtype, code_room
from laconic.kernels.magnitudes import are_finite
from laconic.kernels.segmented import Reading, SegmentedInput, block_bounds, in_shares, reading_of
from laconic.kernels.steps import Step

_TILE = 4096
"""The longest block that a GPU's program holds at once."""


def quantize_blocks(x: Tensor | Step, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of the nearest of ``low + j span / steps``, j = 0 ... steps, with the signs of x.

    With a = |x|, the code is ``sign (1 + trunc(fl(fl(fl(fl(a - low) / span) steps) + 1/2)))``. The span is
    ``fl(highest - low)``, one step less where ``low + span`` would be infinite.

    Args:
        x: (..., d), finite, float32 or float64; or a step.
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

    def plain() -> tuple[Tensor, Tensor, Tensor]:
        return quantize_blocks_plainly(step.numbers(), steps, block)

    def compiled(loops: Any) -> tuple[Tensor, Tensor, Tensor]:
        codes, *extremes, _ = _quantized(loops, reading_of(step), steps, block)
        low, span = (t.view(*step.batch, -1) for t in extremes)
        return codes.view(step.x.shape), low, span

    def on_device(gpu: Any) -> tuple[Tensor, Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor, Tensor], gpu.quantize_blocks(step.numbers(), steps, block))

    return dispatch(
        "blocks",
        compiled if step.compiled else None,
        plain,
        gpu=on_device if block <= _TILE else None,
        tensor=step.x,
    )


def quantize_block_segments(
    inp: SegmentedInput, steps: int, block: int
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """As :func:`quantize_blocks` of every segment, in which blocks begin anew.

    Args:
        inp: the segments.
        steps: as for :func:`quantize_blocks`.
        block: numbers a block; the last of a segment may hold fewer.

    Returns:
        Codes (K,); low and span (B,), B the number of all blocks; and whether all numbers were finite.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> quantize_block_segments(SegmentedInput.of_kept(torch.tensor([1.0, -3.0, 5.0]), table), 3, 1024)[1]
        tensor([1., 5.])
    """

    def plain() -> tuple[Tensor, Tensor, Tensor, bool]:
        steps_, finite = inp.steps(), True
        empty = torch.empty(0, dtype=inp.dtype)
        found = [(empty.to(code_dtype(steps + 1)), empty, empty)]
        for step in steps_:
            found.append(quantize_blocks_plainly(step.numbers(), steps, block))
            finite = finite and bool(step.numbers().isfinite().all())
        codes, low, span = (torch.cat(columns) for columns in zip(*found, strict=True))
        return codes, low, span, finite

    return dispatch("blocks", lambda loops: _quantized(loops, inp.reading(), steps, block), plain)


def _quantized(loops: Any, reading: Reading, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    codes = code_room((reading.columns,), steps + 1)
    owned = block_bounds(reading.bounds, block)
    low = torch.empty(int(owned[-1]), dtype=reading.dtype)
    span = torch.empty_like(low)
    out = (by_width(codes.numpy()), low.numpy(), span.numpy())

    def work(*share: int) -> int:
        return cast(int, loops.quantize(reading, steps, block, owned, *share, *out))

    most = max(in_shares(reading.bounds, work, block), default=0)
    return codes, low, span, are_finite(most, reading.dtype)


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

    def compiled(loops: Any) -> Tensor:
        return _dequantize_rows(loops, codes, levels, span, low, block)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.dequantize_blocks(codes, levels, span, low, block))

    fits = codes.device.type == "cpu" and span.dtype == torch.float32 and codes.dtype in CODE_DTYPES
    return dispatch(
        "blocks",
        compiled if fits else None,
        lambda: dequantize_blocks_plainly(codes, levels, span, low, block),
        gpu=on_device,
        tensor=codes,
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
