"""Signs of segments, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu.rows import PIECE, load


@loop
def signs(reading, segment, column, last, codes):
    """Codes 1 and -1 by the signs of the numbers of columns; the sign of 0 is plus."""
    numbers = np.empty(PIECE, reading.memory.dtype)
    bits = numbers.view(reading.mask.dtype)
    while column < last:
        start = reading.bounds[segment]
        end = min(reading.bounds[segment + 1], last)
        for at in range(column, end, PIECE):
            n = min(PIECE, end - at)
            load(reading, segment, at - start, numbers[:n], bits[:n])
            part = codes[at : at + n]
            for i in range(n):
                part[i] = np.int8(-1) if numbers[i] < 0 else np.int8(1)
        column = end
        segment += 1
