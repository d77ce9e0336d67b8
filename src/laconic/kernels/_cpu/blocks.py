"""The loops of ``blocks`` for the CPU, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu.narrow import put_signed
from laconic.kernels._cpu.rows import PIECE, load


@loop
def quantize(row, steps, block, first, last, codes, low, span):
    """As ``blocks.quantize_blocks`` for the blocks first ... last - 1 of a ``steps.Row``.

    ``codes`` are all of the row, as ``_narrow.by_width`` gives them.
    """
    numbers = np.empty(min(block, row.size), row.x.dtype)
    bits = numbers.view(row.mask.dtype)
    levels = np.empty(PIECE, np.int32)
    ends = np.empty(2, row.mask.dtype)
    for number in range(first, last):
        start = number * block
        n = min(block, row.size - start)
        load(row, start, numbers[:n], bits[:n])
        # Magnitudes compare like their bits, and only integers' extremes are found with vectors.
        least, most = row.mask[0], row.mask[0] - row.mask[0]
        for i in range(n):
            magnitude = bits[i] & row.mask[0]
            least = min(least, magnitude)
            most = max(most, magnitude)
        ends[0], ends[1] = least, most
        a, b = ends.view(row.x.dtype)
        low[number], span[number] = a, b - a
        if np.isinf(a + span[number]):
            span[number] = np.nextafter(span[number], a - a)
        for at in range(0, n, PIECE):
            part = numbers[at : min(at + PIECE, n)]
            _round(part, steps, a, span[number], levels[: part.size])
            if row.out.size > 0:
                out = row.out[start + at : start + at + part.size]
                _add(part, levels[: part.size], steps, a, span[number], row.weight, out)
            put_signed(part, levels[: part.size], start + at, codes)


@loop
def _add(x, levels, steps, low, span, weight, out):
    most = out.dtype.type(steps)
    for i in range(levels.size):
        # The level by a division, as in the table: a table would have to be read number by number.
        level = out.dtype.type(levels[i] - 1) / most
        value = low + level * span
        value = -value if x[i] < 0 else value
        out[i] = out[i] + value * weight


@loop
def _round(x, steps, low, span, levels):
    one = x.dtype.type(1)
    half, most = x.dtype.type(0.5), x.dtype.type(steps)
    divisor = span if span > 0 else one
    for i in range(x.size):
        share = (abs(x[i]) - low) / divisor
        share = share if share < one else one
        levels[i] = np.int32(share * most + half) + np.int32(1)


@loop
def dequantize(codes, levels, span, low, block, numbers):
    """As ``blocks.dequantize_blocks`` for the rows of codes."""
    for row in range(codes.shape[0]):
        for number in range(low.shape[1]):
            a, b = low[row, number], span[row, number]
            start = number * block
            for i in range(start, min(start + block, codes.shape[1])):
                code = np.int32(codes[row, i])
                magnitude = a + levels[abs(code)] * b
                numbers[row, i] = -magnitude if code < 0 else magnitude
