"""Narrowing segments to another dtype, compiled by numba at its first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._halves import converted
from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu._words import larger, smaller
from laconic.kernels.cpu.rows import extremes, load
from laconic.kernels.tables import PIECE

U = np.uint64


@loop
def cast(reading, numbers, bits, most, segment, column, last, out):
    """The numbers of columns, at most ``most``, in the dtype of ``out``.

    ``out`` is float32 or float64, or the bits of 16-bit numbers: int16 of bfloat16, uint16 of float16.

    Returns:
        The bits of the largest magnitude.
    """
    top, bound = reading.mask[0] - reading.mask[0], numbers.dtype.type(most)
    while column < last:
        start = reading.bounds[segment]
        end = smaller(reading.bounds[segment + 1], last)
        for at in range(column, end, PIECE):
            n = smaller(PIECE, end - at)
            load(reading, segment, at - start, n, numbers, bits)
            top = larger(top, extremes(bits, n, reading.mask[0])[1])
            for i in range(n):
                number = numbers[i]
                number = bound if number > bound else number
                number = -bound if number < -bound else number
                out[U(at) + U(i)] = converted(number, out)  # signed indices might count from the end
        column = end
        segment += 1
    return top
