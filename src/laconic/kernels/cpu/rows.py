"""Reading segments piece by piece, x or x minus a memory, compiled by numba at its first use.

Loops over columns have one shape: they are given the segment in which their first column lies, and go from
segment to segment up to their last column, in pieces that stay in the first cache. Room for a piece comes
from the caller (``Reading.room``): numba takes half a second to compile ``np.empty`` and a view.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._words import larger, smaller
from laconic.kernels.tables import PIECE

U = np.uint64


@inner_loop
def load(reading, segment, offset, n, numbers, bits):
    """The n numbers of a segment of a ``segmented.Reading`` from ``offset`` on.

    ``bits`` is the memory of ``numbers`` seen as integers.
    """
    # Unsigned indices, because signed ones might count from the end.
    start = U(reading.x_starts[segment] + offset)
    if reading.short.size > 0:
        for i in range(n):
            bits[i] = np.int32(reading.short[start + U(i)]) << 16
    else:
        for i in range(n):
            numbers[i] = reading.x[start + U(i)]
    if reading.memory.size > 0:
        start = U(reading.memory_starts[segment] + offset)
        for i in range(n):
            numbers[i] = numbers[i] - reading.memory[start + U(i)]


@inner_loop
def extremes(bits, n, mask):
    """The bits of the smallest and of the largest magnitude of the first n of a piece."""
    # Magnitudes compare like their bits, and only integers' extremes are found with vectors.
    least, most = mask, mask - mask
    for i in range(n):
        magnitude = bits[i] & mask
        least, most = smaller(least, magnitude), larger(most, magnitude)
    return least, most


@inner_loop
def largest(reading, segment, first, last, most, numbers, bits):
    """The bits of the largest magnitude of a segment's numbers [first, last), at least ``most``."""
    for at in range(first, last, PIECE):
        n = smaller(PIECE, last - at)
        load(reading, segment, at, n, numbers, bits)
        most = larger(most, extremes(bits, n, reading.mask[0])[1])
    return most


@loop
def largest_of_each(reading, numbers, bits, segment, column, last, found):
    """The bits of the largest magnitude of each segment's numbers among the columns; the others stay."""
    while column < last:
        end = smaller(reading.bounds[segment + 1], last)
        start = reading.bounds[segment]
        found[segment] = largest(reading, segment, column - start, end - start, found[segment], numbers, bits)
        column = end
        segment += 1
