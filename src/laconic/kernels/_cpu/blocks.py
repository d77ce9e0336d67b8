"""The loops of ``blocks`` for float32 on the CPU, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np
from numba import njit

F = np.float32
_OPTIONS = {"nogil": True, "cache": True, "boundscheck": False}


@njit(**_OPTIONS)
def quantize(x, bits, steps, block, codes, low, span):
    """As ``blocks.quantize_blocks`` for the rows of x; ``bits`` is x seen as int32."""
    mask = np.int32(0x7FFFFFFF)
    for row in range(x.shape[0]):
        for number in range(low.shape[1]):
            start = number * block
            end = min(start + block, x.shape[1])
            # Magnitudes compare like their bits, and only integers' extremes are found with vectors.
            least, most = mask, np.int32(0)
            for i in range(start, end):
                magnitude = bits[row, i] & mask
                least = min(least, magnitude)
                most = max(most, magnitude)
            low[row, number] = _number(least)
            span[row, number] = _number(most) - low[row, number]
            if np.isinf(low[row, number] + span[row, number]):
                span[row, number] = np.nextafter(span[row, number], F(0))
            _round(x[row], start, end, steps, low[row, number], span[row, number], codes[row])


@njit(**_OPTIONS)
def _number(bits):
    word = np.empty(1, np.int32)
    word[0] = bits
    return word.view(F)[0]


@njit(**_OPTIONS)
def _round(x, start, end, steps, low, span, codes):
    divisor = span if span > F(0) else F(1)
    for i in range(start, end):
        share = (abs(x[i]) - low) / divisor
        share = share if share < F(1) else F(1)
        level = np.int32(share * steps + F(0.5)) + np.int32(1)
        codes[i] = -level if x[i] < F(0) else level


@njit(**_OPTIONS)
def dequantize(codes, levels, span, low, block, numbers):
    """As ``blocks.dequantize_blocks`` for the rows of codes."""
    for row in range(codes.shape[0]):
        for number in range(low.shape[1]):
            a, b = low[row, number], span[row, number]
            start = number * block
            for i in range(start, min(start + block, codes.shape[1])):
                code = codes[row, i]
                magnitude = a + levels[abs(code)] * b
                numbers[row, i] = -magnitude if code < 0 else magnitude
