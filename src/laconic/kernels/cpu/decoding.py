"""Decoding of codes, compiled by numba at its first use.

The number of a code depends on its scale, lowest magnitude, factor and weight only. Where these stay the same
for more codes than there are levels, a table of all numbers is made first; every number in it is rounded as
it would be alone.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._simd import never_inlined
from laconic.kernels.cpu._words import larger, smaller

U = np.uint64


@inner_loop
def number(place, levels, scale, low, lowered, factor):
    """The number at a place of the table of levels -L, ..., L."""
    if lowered:
        last = levels.size - 1
        magnitude = low + levels[larger(place, last - place)] * scale
        return (-magnitude if 2 * place < last else magnitude) * factor
    return levels[place] * scale * factor


@inner_loop
def fill_table(levels, scale, low, lowered, factor, weight, table):
    """Each level's number times the weight."""
    never_inlined()
    for place in range(levels.size):
        table[place] = number(place, levels, scale, low, lowered, factor) * weight


@loop
def decode(codes, levels, scales, lows, factors, group, table, first, last, out):
    """The numbers of the columns from ``first`` up to ``last``; returns whether all codes have a level.

    ``table`` is room for as many numbers as there are levels.
    """
    middle = np.int64(levels.size // 2)
    table[0] = 1
    one = table[0]
    lowered = lows.size > 0
    for s in range(factors.size):
        start, end = group.bounds[s], group.bounds[s + 1]
        begin = larger(start, first)
        while begin < smaller(end, last):
            block = (begin - start) // group.block
            stop = smaller(smaller(end, last), start + (block + 1) * group.block)
            block += group.blocks[s]
            scale = scales[block] if scales.size > 0 else one
            low = lows[block] if lowered else one
            part, numbers = codes[begin:stop], out[begin:stop]
            begin = stop
            least, largest = np.int64(0), np.int64(0)
            for i in range(part.size):
                code = np.int64(part[i])
                least, largest = smaller(least, code), larger(largest, code)
            if least < -middle or largest > middle:
                return False
            if numbers.size >= levels.size:
                fill_table(levels, scale, low, lowered, factors[s], one, table)
                for i in range(numbers.size):
                    numbers[i] = table[U(middle + part[i])]
            else:
                for i in range(numbers.size):
                    numbers[i] = number(middle + part[i], levels, scale, low, lowered, factors[s])
    return True
