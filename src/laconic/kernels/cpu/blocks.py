"""The loops of ``blocks`` for the CPU, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._simd import float_of
from laconic.kernels.cpu.narrow import put_signed
from laconic.kernels.cpu.rows import extremes, load
from laconic.kernels.tables import PIECE


@loop
def quantize(reading, room, steps, block, block_bounds, segment, column, last, codes, low, span):
    """As ``blocks.quantize_blocks`` for the blocks of columns; ``column`` begins a block.

    Segment s owns ``low`` and ``span`` from ``block_bounds[s]`` on. ``codes`` are of all columns, as
    ``views_by_dtype`` gives them.

    Returns:
        The bits of the largest magnitude.
    """
    numbers, bits, levels = room
    top = reading.mask[0] - reading.mask[0]
    while column < last:
        start = reading.bounds[segment]
        end = min(reading.bounds[segment + 1], last)
        for first in range(column, end, block):
            stop = min(first + block, end)
            least, most = reading.mask[0], reading.mask[0] - reading.mask[0]
            for at in range(first, stop, PIECE):
                n = min(PIECE, stop - at)
                load(reading, segment, at - start, n, numbers, bits)
                lowest, highest = extremes(bits, n, reading.mask[0])
                least, most = min(least, lowest), max(most, highest)
            top = max(top, most)
            integer = reading.mask.dtype.type
            a, b = float_of(integer(least)), float_of(integer(most))
            width = b - a
            if np.isinf(a + width):
                width = np.nextafter(width, a - a)
            number = block_bounds[segment] + (first - start) // block
            low[number], span[number] = a, width
            for at in range(first, stop, PIECE):
                n = min(PIECE, stop - at)
                if stop - first > PIECE:
                    load(reading, segment, at - start, n, numbers, bits)
                _round(numbers[:n], steps, a, width, levels)
                put_signed(numbers[:n], levels[:n], at, codes)
        column = end
        segment += 1
    return top


@inner_loop
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
