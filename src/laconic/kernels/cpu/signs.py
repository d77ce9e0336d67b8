"""Signs of segments, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu._words import smaller
from laconic.kernels.cpu.rows import load
from laconic.kernels.tables import PIECE

U = np.uint64


@loop
def signs(reading, numbers, bits, segment, column, last, codes):
    """Codes 1 and -1 by the signs of the numbers of columns; the sign of 0 is plus."""
    while column < last:
        start = reading.bounds[segment]
        end = smaller(reading.bounds[segment + 1], last)
        for at in range(column, end, PIECE):
            n = smaller(PIECE, end - at)
            load(reading, segment, at - start, n, numbers, bits)
            # Unsigned indices, because signed ones might count from the end.
            for i in range(n):
                codes[U(at) + U(i)] = np.int8(-1) if numbers[i] < 0 else np.int8(1)
        column = end
        segment += 1
