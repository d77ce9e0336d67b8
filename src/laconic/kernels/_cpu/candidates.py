"""Candidates for the k largest of a long vector: a bound below the k-th magnitude, and what reaches it.

Where the list of candidates is full, only its own k largest stay, of equal ones the first, and the bound
becomes what a later number must reach to displace one of them: ties and hostile data cost no second pass.

Bit patterns are those of ``_simd``. ``mask`` clears the sign, ``top`` is the largest magnitude there is.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import math

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._largest import emit, threshold
from laconic.kernels._cpu._simd import LANES, ahead, apart, number, ones, reaching, trailing_zeros, within

U = np.uint64
ZERO = np.int64(0)
"""A plain 0 is another type to numba, and everything would be compiled for it once more."""
MOST_SAMPLES = 1 << 16
_SIGMAS = 4.5
STRETCH = np.int64(1 << 11)
"""Numbers whose candidates are found together."""
SLACK = int(STRETCH) + 2 * LANES


@loop
def word_at(x, memory, i, hi, bound):
    """Of the 64 numbers from ``i`` on, those before ``hi`` whose magnitude reaches the bound; hi >= 64."""
    if i + LANES <= hi:
        return reaching(x, memory, i, bound)
    # The last numbers again with some of those before, which are not counted twice.
    return reaching(x, memory, hi - LANES, bound) >> U(i + LANES - hi)


@loop
def scan(x, memory, lo, hi, base, bound, mask, positions, bits, at, most):
    """Candidates of x[lo:hi]: all >= bound; where the next would go. It gives up at more than ``most``."""
    within()
    first = at
    whole = lo + (hi - lo) // LANES * LANES
    for i in range(lo, whole, LANES):
        ahead(x, memory, i)
        word = reaching(x, memory, i, bound)
        found = ones(word)
        # Most words have few ones. Four are written without asking, for a wrong guess costs more.
        for j in range(4):
            positions[U(at + j)] = i - base + trailing_zeros(word)
            word &= word - U(1)
        for j in range(4, found):
            positions[U(at + j)] = i - base + trailing_zeros(word)
            word &= word - U(1)
        at += found
        if at - first > most:
            return at
    if whole < hi and hi >= LANES:
        word = word_at(x, memory, whole, hi, bound)
        while word != U(0):
            positions[U(at)] = whole - base + trailing_zeros(word)
            word &= word - U(1)
            at += 1
    elif whole < hi:
        for i in range(whole, hi):
            positions[U(at)] = i - base
            at += number(x, memory, i) & mask >= bound
    # What was just read is still in the nearest cache.
    for i in range(first, at):
        bits[U(i)] = number(x, memory, base + positions[U(i)])
    return at


@loop
def capture(x, memory, lo, hi, base, k, bound, mask, top, positions, bits, begin, room, one, size):
    """Candidates of x[lo:hi]: all >= bound, or the k largest and some; their number.

    They are written from ``begin`` on, less than ``room`` of them (room >= min(hi - lo, k) + SLACK).
    """
    apart()
    count = np.int64(0)
    full = room - SLACK
    low = bound
    step = np.int64(1) << (50 if mask > 0x7FFFFFFF else 20)
    for start in range(lo, hi, STRETCH):
        if count > full:
            one[0], size[0] = begin, count
            t, ties = threshold(bits, one, size, k, low, top, step)
            count = (
                emit(positions, bits, begin, count, t, ties, mask, top, ZERO, positions, bits, begin) - begin
            )
            if t == top:
                break
            # Of later numbers that equal the k-th none is wanted, so they need not be found.
            bound, low = t + 1, t if ties > 0 else t + 1
        stop = min(start + STRETCH, hi)
        end = scan(x, memory, start, stop, base, bound, mask, positions, bits, begin + count, STRETCH)
        count = end - begin
    return count


@loop
def sampled_bound(x, memory, lo, hi, k, salt, top, bits, one, size):
    """A magnitude that at least k of x[lo:hi] most probably reach: an order statistic of a sample.

    One number is drawn of each of m stretches, by a fixed mixing of ``salt`` and the stretch's number.
    """
    apart()
    n = hi - lo
    share = k / n
    m = np.int64((n * math.sqrt(share)) ** (2 / 3))
    m = min(max(m, min(n // 16, np.int64(8 / share), 8192)), MOST_SAMPLES)
    rank = np.int64(math.ceil(m * share + _SIGMAS * math.sqrt(m * share * (1 - share)) + 1))
    if rank >= m:
        return np.int64(0)
    stride = n // m
    key = U(salt) * U(0xD1342543DE82EF95)
    for i in range(m):
        mixed = (U(i + 1) + key) * U(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> U(29))) * U(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> U(32))) * U(0x94D049BB133111EB)
        place = np.int64(((mixed >> U(32)) * U(stride)) >> U(32))
        bits[i] = number(x, memory, lo + i * stride + place)
    one[0], size[0] = 0, m
    t, ties = threshold(bits, one, size, rank, np.int64(0), top, top // 2)
    return t if ties > 0 else t + 1
