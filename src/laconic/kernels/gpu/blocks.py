"""Rounding to equal steps between the extremes of each block, as ``laconic.kernels.quantize_blocks`` says.

A program holds its blocks whole, and reads and writes their places alone. ``fl(fl(share steps) + 1/2)`` and
``fl(low + fl(level span))`` would come out otherwise from a fused multiply-add; launches forbid it.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.gpu._launch import LARGEST_TILE, as_rows, launch, power_of_two
from laconic.kernels.gpu._numbers import magnitude, quotient, signed, widened
from laconic.kernels.tables import accumulation_dtype


def quantize_blocks(x, steps, block):
    """As ``laconic.kernels.quantize_blocks``, for blocks of up to 4096.

    Raises:
        ValueError: for longer blocks.
    """
    if not 1 <= block <= LARGEST_TILE:
        raise ValueError(f"blocks of 1 to {LARGEST_TILE} numbers, got {block}")
    rows, dtype = as_rows(x), accumulation_dtype(x.dtype)
    n, d = rows.shape
    per_row = triton.cdiv(d, block)
    codes = torch.empty(x.shape, dtype=code_dtype(steps + 1), device=x.device)
    low = torch.empty(*x.shape[:-1], per_row, dtype=dtype, device=x.device)
    span = torch.empty_like(low)
    length = power_of_two(block)
    together = max(1, 1024 // length)
    launch(
        _quantize, triton.cdiv(n * per_row, together), rows, codes, low, span,
        n * per_row, d, per_row, block, steps, TOGETHER=together, LENGTH=length,
    )  # fmt: skip
    return codes, low, span


def dequantize_blocks(codes, levels, span, low, block):
    """As ``laconic.kernels.dequantize_blocks``."""
    numbers = torch.empty(codes.shape, dtype=span.dtype, device=codes.device)
    k = codes.shape[-1]
    rows = codes.numel() // max(k, 1)
    tiles = triton.cdiv(k, 1024)
    source = (t.contiguous() for t in (codes, levels, span, low))
    launch(_dequantize, rows * tiles, *source, numbers, k, tiles, span.shape[-1], block, TILE=1024)
    return numbers


@triton.jit(do_not_specialize=["blocks", "per_row", "block", "steps"])
def _quantize(
    x, codes, lows, spans, blocks, d, per_row, block, steps,
    TOGETHER: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Codes and extremes of TOGETHER blocks."""
    number = tl.program_id(0).to(tl.int64) * TOGETHER + tl.arange(0, TOGETHER)
    row, inside = number // per_row, number % per_row
    length = tl.where(number < blocks, tl.minimum(d - inside * block, block), 0)
    lane = tl.arange(0, LENGTH)[None, :]
    mask = lane < length[:, None]
    place = (row * d + inside * block)[:, None] + lane
    value = widened(tl.load(x + place, mask=mask, other=0.0))
    size = tl.abs(value)
    # Magnitudes compare like their bits, and a minimum of integers has no special cases.
    key = magnitude(value)
    most = tl.max(key, axis=1).to(size.dtype, bitcast=True)
    largest_key = tl.full((), (1 << (key.dtype.primitive_bitwidth - 1)) - 1, dtype=key.dtype)
    low = tl.min(tl.where(mask, key, largest_key), axis=1)
    low = tl.where(length > 0, low, 0).to(size.dtype, bitcast=True)
    span = most - low
    less = (magnitude(span) - 1).to(size.dtype, bitcast=True)
    span = tl.where(low + span == float("inf"), less, span)
    tl.store(lows + number, low, mask=number < blocks)
    tl.store(spans + number, span, mask=number < blocks)
    divisor = tl.where(span > 0, span, 1.0)[:, None] + tl.zeros_like(size)
    share = tl.minimum(tl.maximum(quotient(size - low[:, None], divisor), 0.0), 1.0)
    level = (share * steps.to(size.dtype) + 0.5).to(tl.int32) + 1
    tl.store(codes + place, tl.where(value < 0, -level, level), mask=mask)


@triton.jit(do_not_specialize=["tiles", "per_row", "block"])
def _dequantize(codes, levels, spans, lows, numbers, k, tiles, per_row, block, TILE: tl.constexpr):
    """The numbers of one tile's codes."""
    program = tl.program_id(0).to(tl.int64)
    row, first = program // tiles, program % tiles * TILE
    place = first + tl.arange(0, TILE)
    mask = place < k
    code = tl.load(codes + row * k + place, mask=mask, other=0).to(tl.int32)
    at = row * per_row + place // block
    span = tl.load(spans + at, mask=mask, other=0.0)
    low = tl.load(lows + at, mask=mask, other=0.0)
    size = low + tl.load(levels + tl.abs(code), mask=mask, other=0.0) * span
    tl.store(numbers + row * k + place, signed(size, code < 0), mask=mask)
