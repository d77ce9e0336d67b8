"""Rice coding of the gaps between positions, for CPUs; ``reference.rice`` defines it.

Bits stand in little-endian 64-bit words, lowest first. A loop reads no word beyond those that its caller has
sized, whatever the bits say: counts of ones are taken before ones are followed.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._simd import ones, trailing_zeros

U = np.uint64


@loop
def ascend(positions, d):
    """Whether the numbers ascend within [0, d)."""
    last = np.int64(-1)
    good = True
    for i in range(positions.size):
        good &= positions[i] > last
        last = positions[i]
    return good and last < d


@loop
def count_ones(words):
    """The number of ones."""
    total = np.int64(0)
    for i in range(words.size):
        total += ones(words[i])
    return total


@loop
def gaps_between(positions, gaps):
    """What lies between a position and the one before."""
    last = np.int64(-1)
    for i in range(positions.size):
        gaps[i] = positions[i] - last - 1
        last = positions[i]


@inner_loop
def _rice_cost(gaps, start, end, low):
    cost = np.int64(0)
    for i in range(start, end):
        cost += gaps[i] >> low
    return cost + (end - start) * low


@loop
def choose_low(gaps, block, most, lows):
    """The smallest best number of low bits of each block of gaps; returns (low bits, high bits) in all."""
    low_bits, high_bits = np.int64(0), np.int64(0)
    low = 0
    for number in range(lows.size):
        start = number * block
        end = min(start + block, gaps.size)
        # The cost is convex in the number of low bits, so the nearest minimum is the only one.
        cost = _rice_cost(gaps, start, end, low)
        while low < most:
            other = _rice_cost(gaps, start, end, low + 1)
            if other >= cost:
                break
            low, cost = low + 1, other
        while low > 0:
            other = _rice_cost(gaps, start, end, low - 1)
            if other > cost:
                break
            low, cost = low - 1, other
        lows[number] = low
        low_bits += (end - start) * low
        high_bits += cost - (end - start) * low + (end - start)
    return low_bits, high_bits


@loop
def put_rice(gaps, block, lows, words, high):
    """The low bits of each gap, and a one after as many zeros as the rest says; ``high`` is zero."""
    at, word, filled = 0, U(0), 0
    place = np.int64(-1)
    for number in range(lows.size):
        low = lows[number]
        mask = (U(1) << U(low)) - U(1)
        for i in range(number * block, min(number * block + block, gaps.size)):
            place += (gaps[i] >> low) + 1
            high[place >> 6] |= U(1) << U(place & 63)
            bits = U(gaps[i]) & mask
            word |= bits << U(filled)
            filled += low
            if filled >= 64:
                words[at] = word
                at += 1
                filled -= 64
                word = bits >> U(low - filled) if filled > 0 else U(0)
    if filled > 0:
        words[at] = word


@loop
def get_rice(high, words, block, lows, limit, positions):
    """The positions of coded gaps; ``high`` holds as many ones. Returns the last, or limit once passed."""
    at, marks = 0, high[0]
    word, left, after = words[0], 64, 1
    before, position = np.int64(-1), np.int64(-1)
    for number in range(lows.size):
        low = lows[number]
        mask = (U(1) << U(low)) - U(1)
        for i in range(number * block, min(number * block + block, positions.size)):
            while marks == U(0):
                at += 1
                marks = high[at]
            place = (at << 6) + trailing_zeros(marks)
            marks &= marks - U(1)
            zeros = place - before - 1
            if zeros > limit >> low:
                return limit
            if left >= low:
                bits = word & mask
                word >>= U(low)
                left -= low
            else:
                more = words[after]
                after += 1
                bits = (word | more << U(left)) & mask
                word = more >> U(low - left)
                left += 64 - low
            position += (zeros << low) + np.int64(bits) + 1
            before = place
            positions[i] = position
        if position >= limit:
            return limit
    return position
