"""Narrowing segments to another dtype, compiled by numba at its first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu.rows import PIECE, extremes, load


@loop
def cast(reading, most, half, segment, column, last, shorts, singles, doubles):
    """The numbers of columns, at most ``most``, in the one array of the last three that is not empty.

    ``shorts`` are the bits of float16 numbers where ``half``, else of bfloat16 numbers.

    Returns:
        The bits of the largest magnitude.
    """
    numbers = np.empty(PIECE, reading.memory.dtype)
    bits = numbers.view(reading.mask.dtype)
    single = np.empty(PIECE, np.float32)
    single_bits = single.view(np.int32)
    top, bound = reading.mask[0] - reading.mask[0], numbers.dtype.type(most)
    while column < last:
        start = reading.bounds[segment]
        end = min(reading.bounds[segment + 1], last)
        for at in range(column, end, PIECE):
            n = min(PIECE, end - at)
            load(reading, segment, at - start, numbers[:n], bits[:n])
            top = max(top, extremes(bits[:n], reading.mask[0])[1])
            for i in range(n):
                numbers[i] = min(max(numbers[i], -bound), bound)
            if doubles.size > 0:
                for i in range(n):
                    doubles[at + i] = numbers[i]
            else:
                for i in range(n):
                    single[i] = np.float32(numbers[i])
                if singles.size > 0:
                    for i in range(n):
                        singles[at + i] = single[i]
                elif half:
                    _to_float16(single[:n], single_bits[:n], shorts[at : at + n])
                else:
                    _to_bfloat16(single_bits[:n], shorts[at : at + n])
        column = end
        segment += 1
    return top


@loop
def _to_bfloat16(bits, shorts):
    """The upper half, to the nearest and ties to even, of finite numbers."""
    for i in range(bits.size):
        odd = np.int32(bits[i] >> 16) & np.int32(1)
        shorts[i] = np.int16(np.int32(bits[i] + 0x7FFF + odd) >> 16)


@loop
def _to_float16(numbers, bits, shorts):
    """To the nearest and ties to even, of numbers of at most 65504."""
    normal, unit, last = np.float32(2.0**-14), np.float32(2.0**24), np.float32(2.0**23)
    for i in range(bits.size):
        magnitude = np.int32(bits[i] & 0x7FFFFFFF)
        odd = np.int32(magnitude >> 13) & np.int32(1)
        # Another bias of the exponent, and half of the last place, whose carry into the exponent is right.
        rounded = np.int32(np.int32(magnitude - (112 << 23) + 0xFFF + odd) >> 13)
        # Below the normal range the bits count units of 2^-24; adding 2^23 rounds to a whole one.
        small = np.int32((min(abs(numbers[i]), normal) * unit + last) - last)
        sign = np.int32(np.int32(bits[i] >> 16) & 0x8000)
        shorts[i] = np.int16((small if magnitude < np.int32(113 << 23) else rounded) | sign)
