"""Canonical sums of a row, compiled by numba at their first use; ``sums`` is what they must equal."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu.rows import PIECE, load

LANES = 64
BLOCK = 4096
PLAIN, MAGNITUDES, SQUARES, SHARES = 0, 1, 2, 3


@loop
def block_sums(row, what, a, b, first, out):
    """The sums of blocks of 4096 from number ``first`` on, of the numbers, of magnitudes, or of others.

    ``SQUARES`` squares ``fl(fl(|x| a) b)``, ``SHARES`` divides magnitudes by a.
    """
    numbers = np.empty(PIECE, row.x.dtype)
    bits = numbers.view(row.mask.dtype)
    terms = np.empty(PIECE, np.float64)
    lanes = np.empty(LANES, np.float64)
    for number in range(out.size):
        start = (first + number) * BLOCK
        lanes[:] = 0.0
        for at in range(start, min(start + BLOCK, row.size), PIECE):
            n = min(PIECE, row.size - at)
            load(row, at, numbers[:n], bits[:n])
            _terms(numbers[:n], what, a, b, terms)
            terms[n:] = 0.0
            for i in range(0, PIECE, LANES):
                here = terms[i : i + LANES]
                for lane in range(LANES):
                    lanes[lane] += here[lane]
        width = LANES
        while width > 1:
            width //= 2
            for lane in range(width):
                lanes[lane] += lanes[lane + width]
        out[number] = lanes[0]


@loop
def _terms(numbers, what, a, b, terms):
    if what == PLAIN:
        for i in range(numbers.size):
            terms[i] = np.float64(numbers[i])
    elif what == MAGNITUDES:
        for i in range(numbers.size):
            terms[i] = abs(np.float64(numbers[i]))
    elif what == SQUARES:
        for i in range(numbers.size):
            x = np.float64(numbers[i]) * a * b
            terms[i] = x * x
    else:
        for i in range(numbers.size):
            terms[i] = abs(np.float64(numbers[i])) / a


@loop
def folded(sums):
    """The sum of the blocks' sums, folded in neighbours in place."""
    left = sums.size
    while left > 1:
        for i in range(left // 2):
            sums[i] = sums[2 * i] + sums[2 * i + 1]
        if left % 2:
            sums[left // 2] = sums[left - 1]
        left = (left + 1) // 2
    return sums[0]
