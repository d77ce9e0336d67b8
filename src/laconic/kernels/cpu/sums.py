"""Canonical sums of segments, compiled by numba at their first use; ``sums`` is what they must equal."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._simd import folded_halves, load, plus_squares, wide_zeros
from laconic.kernels.cpu._words import smaller
from laconic.kernels.cpu.rows import load as load_piece
from laconic.kernels.tables import PIECE

LANES = 64
BLOCK = 4096
PLAIN, SQUARES, SHARES = 0, 1, 2
_floats = load(LANES)


@loop
def block_sums(reading, rooms, what, factors, block_bounds, segment, column, last, out):
    """The sums of blocks of 4096 of each segment's numbers, or of what is made of them.

    ``SQUARES`` squares ``fl(fl(|x| a) b)``, ``SHARES`` divides magnitudes by a; ``factors`` holds a and b of
    each segment. Segment s owns ``out`` from ``block_bounds[s]`` on; ``column`` begins a block. ``rooms`` are
    for a piece, its bits, its terms, and the lanes of their sums.
    """
    numbers, bits, terms, lanes = rooms
    while column < last:
        start = reading.bounds[segment]
        end = smaller(reading.bounds[segment + 1], last) - start
        a, b = factors[segment, 0], factors[segment, 1]
        plain = what == SQUARES and a == 1.0 and b == 1.0
        plain = plain and reading.short.size == 0 and reading.memory.size == 0
        for first in range(column - start, end, BLOCK):
            if plain and first + BLOCK <= end:
                address = np.int64(reading.x.ctypes.data)
                found = _block_of_squares(address, reading.x_starts[segment] + first, bits)
                out[block_bounds[segment] + first // BLOCK] = found
                continue
            for lane in range(LANES):
                lanes[lane] = 0.0
            for at in range(first, smaller(first + BLOCK, end), PIECE):
                n = smaller(PIECE, end - at)
                load_piece(reading, segment, at, n, numbers, bits)
                _terms(numbers, n, what, a, b, terms)
                # Rows of nothing but zeros would change no lane.
                whole = (n + LANES - 1) // LANES * LANES
                for i in range(n, whole):
                    terms[i] = 0.0
                for row in range(whole // LANES):
                    for lane in range(LANES):
                        lanes[lane] += terms[row * LANES + lane]
            width = LANES
            while width > 1:
                width //= 2
                for lane in range(width):
                    lanes[lane] += lanes[lane + width]
            out[block_bounds[segment] + first // BLOCK] = lanes[0]
        column = start + end
        segment += 1


@inner_loop
def _block_of_squares(address, start, bits):
    """The sum of squares of a whole block, in registers; ``bits`` is as wide as the numbers."""
    lanes = wide_zeros(start)
    for row in range(BLOCK // LANES):
        lanes = plus_squares(lanes, _floats(address, start + row * LANES, bits))
    return folded_halves(lanes)


@inner_loop
def _terms(numbers, n, what, a, b, terms):
    if what == PLAIN:
        for i in range(n):
            terms[i] = np.float64(numbers[i])
    elif what == SQUARES:
        for i in range(n):
            x = np.float64(numbers[i]) * a * b
            terms[i] = x * x
    else:
        for i in range(n):
            terms[i] = abs(np.float64(numbers[i])) / a


@loop
def folded(sums, block_bounds, out):
    """The sum of each segment's blocks, folded in neighbours in place."""
    for segment in range(out.size):
        first, end = block_bounds[segment], block_bounds[segment + 1]
        left = end - first
        while left > 1:
            for i in range(left // 2):
                sums[first + i] = sums[first + 2 * i] + sums[first + 2 * i + 1]
            if left % 2:
                sums[first + left // 2] = sums[first + left - 1]
            left = (left + 1) // 2
        out[segment] = sums[first] if end > first else 0.0
