"""Reading a row piece by piece, x or x minus a memory, compiled by numba at its first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop

PIECE = 1024
"""Numbers read at a time: few enough that all that is made of them stays in the first cache."""


@loop
def load(row, start, numbers, bits):
    """The numbers of a ``steps.Row`` from ``start`` on; ``bits`` is their memory seen as integers."""
    n = numbers.size
    if row.short.size > 0:
        short = row.short[start : start + n]
        for i in range(n):
            bits[i] = np.int32(short[i]) << 16
        if row.memory.size > 0:
            memory = row.memory[start : start + n]
            for i in range(n):
                numbers[i] = numbers[i] - memory[i]
    elif row.memory.size > 0:
        x, memory = row.x[start : start + n], row.memory[start : start + n]
        for i in range(n):
            numbers[i] = x[i] - memory[i]
    else:
        x = row.x[start : start + n]
        for i in range(n):
            numbers[i] = x[i]


@loop
def largest(row, start, end, mask):
    """The bits of the largest magnitude in [start, end); ``mask`` holds one number that clears a sign."""
    most = mask[0] - mask[0]
    numbers = np.empty(PIECE, row.x.dtype)
    bits = numbers.view(mask.dtype)
    for at in range(start, end, PIECE):
        n = min(PIECE, end - at)
        load(row, at, numbers[:n], bits[:n])
        # Magnitudes compare like their bits, and only integers' extremes are found with vectors.
        for i in range(n):
            most = max(most, bits[i] & mask[0])
    return most
