"""Rounding to levels and to signs.

Every number is rounded on its own: a program reads and writes the places of its own tile alone. The levels
around a magnitude are found in the table by halving, or for powers of two from the exponent. A uniform
number ``w / 2^32`` lies below a share s in [0, 1] exactly where ``w < ceil(2^32 s)``, which integers decide.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.gpu._launch import as_rows, launch
from laconic.kernels.gpu._numbers import magnitude, quotient, widened
from laconic.kernels.gpu.philox import origins, words_of
from laconic.kernels.gpu.sums import largest
from laconic.kernels.levels import base_below
from laconic.kernels.reference.philox import Purpose
from laconic.kernels.tables import accumulation_dtype

_TILE = 1024
_NEAREST, _RANDOM, _SIGNS = 0, 1, 2
_ALL_POWERS = {torch.float32: 277, torch.float64: 2098}
"""Number of powers of two of a dtype, subnormal ones included."""


def round_to_levels(x, levels, draw=None, *, base=None, scale=None):
    """As ``laconic.kernels.round_to_levels``.

    The levels must be of the accumulation dtype, on x's device; their table is looked at once by the host.
    """
    dtype = accumulation_dtype(x.dtype)
    if levels.table.dtype != dtype:
        raise TypeError(f"the levels of {x.dtype} numbers must be {dtype}")
    if base is None and scale is None and levels.window is not None:
        base = base_below(largest_magnitude(x), levels)
    powers = levels.index.powers and levels.top == _ALL_POWERS[dtype]
    return _round(
        x, levels.table, levels.top, _NEAREST if draw is None else _RANDOM, draw, base, scale, powers
    )


def round_to_signs(x):
    """As ``laconic.kernels.round_to_signs``."""
    return _round(x, None, 1, _SIGNS, None, None, None, False)


def largest_magnitude(x):
    """As ``laconic.kernels.largest_magnitude``."""
    return largest(x).unsqueeze(-1)


def _round(x, table, top, method, draw, base, scale, powers):
    rows = as_rows(x)
    (n, d), batch, device = rows.shape, x.shape[:-1], x.device
    codes = torch.empty(x.shape, dtype=code_dtype(top), device=device)
    table = codes if table is None else table
    if scale is not None:
        scale = scale.to(accumulation_dtype(x.dtype)).expand(*batch, 1).contiguous()
    bases = codes if base is None else base.to(torch.int64).expand(*batch, 1).contiguous()
    origin = codes if draw is None else origins(draw, n, device)
    tiles = triton.cdiv(d, _TILE)
    launch(
        _round_tile, n * tiles, rows, table, codes if scale is None else scale, bases, origin, codes,
        d, tiles, top, SCALED=scale is not None, BASED=base is not None,
        METHOD=method, POWERS=powers, STEPS=top.bit_length(),
        PURPOSE=int(Purpose.ROUNDING), TILE=_TILE,
    )  # fmt: skip
    return codes


@triton.jit
def _level_below(number, table, top, POWERS: tl.constexpr, STEPS: tl.constexpr):
    """The number of the largest level that is at most a non-negative number."""
    if POWERS:
        bits = magnitude(number)
        fraction: tl.constexpr = 52 if number.dtype == tl.float64 else 23
        bias: tl.constexpr = 1023 if number.dtype == tl.float64 else 127
        # A subnormal number is its bits, an integer, times the smallest power of two.
        reach = (magnitude(bits.to(number.dtype)) >> fraction) - bias + 1
        exponent = bits >> fraction
        level = tl.where(exponent > 0, exponent + fraction, tl.where(bits > 0, reach, 0))
        level = tl.minimum(level, top).to(tl.int32)
    else:
        level = tl.zeros_like(magnitude(number)).to(tl.int32)
        for step in tl.static_range(STEPS):
            trial = level + (1 << (STEPS - 1 - step))
            fits = trial <= top
            level = tl.where(fits & (tl.load(table + tl.where(fits, trial, 0)) <= number), trial, level)
    return level


@triton.jit(do_not_specialize=["tiles", "top"])
def _round_tile(
    x, table, scales, bases, origin, codes, d, tiles, top,
    SCALED: tl.constexpr, BASED: tl.constexpr, METHOD: tl.constexpr,
    POWERS: tl.constexpr, STEPS: tl.constexpr, PURPOSE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Reads, rounds and writes codes."""
    program = tl.program_id(0).to(tl.int64)
    row, first = program // tiles, program % tiles * TILE
    place = first + tl.arange(0, TILE)
    mask = place < d
    number = widened(tl.load(x + row * d + place, mask=mask, other=0.0))
    size = tl.abs(number)
    if METHOD == 2:
        level = tl.full((TILE,), 1, dtype=tl.int32)
    else:
        if SCALED:
            scale = tl.load(scales + row)
            divisor = tl.zeros_like(size) + tl.where(scale > 0, scale, 1.0)
            size = tl.minimum(quotient(size, divisor), 1.0)
        below = _level_below(size, table, top, POWERS, STEPS)
        above = tl.minimum(below + 1, top)
        if BASED:
            base = tl.load(bases + row).to(tl.int32)
            under = below <= base
            below = tl.where(under, 0, below)
            above = tl.where(under, base + 1, above)
        low, high = tl.load(table + below), tl.load(table + above)
        if METHOD == 0:
            up = (high - size) <= (size - low)
        else:
            gap = high - low
            share = tl.where(gap > 0, quotient(size - low, tl.where(gap > 0, gap, 1.0)), 0.0)
            word = words_of(origin + 4 * row, first // 4, PURPOSE, TILE // 4)
            # Rounded up by integers: Triton's own instruction for float32 flushes subnormal numbers.
            bound = share * 4294967296.0
            whole = bound.to(tl.int64)
            up = word.to(tl.int64) < whole + (whole.to(bound.dtype) < bound).to(tl.int64)
        level = tl.where(up, above, below)
    tl.store(codes + row * d + place, tl.where(number < 0, -level, level), mask=mask)
