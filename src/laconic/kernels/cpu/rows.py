"""Reading segments piece by piece, x or x minus a memory, compiled by numba at its first use.

Loops over columns have one shape: they are given the segment in which their first column lies, and go from
segment to segment up to their last column, in pieces that stay in the first cache.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import loop

U = np.uint64
PIECE = 1024
"""Numbers read at a time: few enough that all that is made of them stays in the first cache."""


@loop
def load(reading, segment, offset, numbers, bits):
    """The numbers of a segment of a ``segmented.Reading`` from ``offset`` on, as many as ``numbers`` holds.

    ``bits`` is the memory of ``numbers`` seen as integers.
    """
    # Unsigned indices, because signed ones might count from the end.
    start = U(reading.x_starts[segment] + offset)
    if reading.short.size > 0:
        for i in range(numbers.size):
            bits[i] = np.int32(reading.short[start + U(i)]) << 16
    else:
        for i in range(numbers.size):
            numbers[i] = reading.x[start + U(i)]
    if reading.memory.size > 0:
        start = U(reading.memory_starts[segment] + offset)
        for i in range(numbers.size):
            numbers[i] = numbers[i] - reading.memory[start + U(i)]


@loop
def extremes(bits, mask):
    """The bits of the smallest and of the largest magnitude of a piece."""
    # Magnitudes compare like their bits, and only integers' extremes are found with vectors.
    least, most = mask, mask - mask
    for i in range(bits.size):
        magnitude = bits[i] & mask
        least = min(least, magnitude)
        most = max(most, magnitude)
    return least, most


@loop
def largest(reading, segment, first, last, most):
    """The bits of the largest magnitude of a segment's numbers [first, last), at least ``most``."""
    numbers = np.empty(PIECE, reading.memory.dtype)
    bits = numbers.view(reading.mask.dtype)
    for at in range(first, last, PIECE):
        n = min(PIECE, last - at)
        load(reading, segment, at, numbers[:n], bits[:n])
        most = max(most, extremes(bits[:n], reading.mask[0])[1])
    return most


@loop
def largest_of_each(reading, segment, column, last, found):
    """The bits of the largest magnitude of each segment's numbers among the columns; the others stay."""
    while column < last:
        end = min(reading.bounds[segment + 1], last)
        start = reading.bounds[segment]
        found[segment] = largest(reading, segment, column - start, end - start, found[segment])
        column = end
        segment += 1
