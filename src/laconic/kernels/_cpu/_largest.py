"""The k largest of lists of candidates: what parts them from the rest, and writing them in order.

Bit patterns are those of ``_simd``. ``mask`` clears the sign, ``top`` is the largest magnitude there is.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np
from numba import njit

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._simd import LANES, apart, ones, reaching, reaching_32, trailing_zeros, within

U = np.uint64
FEW = 32
"""Candidates up to here are ranked one by one."""


@loop
def reached(bits, begin, count, bound):
    """How many of ``bits[begin : begin + count]`` have a magnitude >= bound."""
    apart()
    total = np.int64(0)
    whole = begin + count // LANES * LANES
    for start in range(begin, whole, LANES):
        total += ones(reaching(bits, None, start, bound))
    rest = begin + count - whole
    if rest > 0:
        total += ones(reaching(bits, None, whole, bound) & ((U(1) << U(rest)) - U(1)))
    return total


@njit(inline="always")
def _reached_in_all(bits, begins, sizes, bound):
    total = np.int64(0)
    for piece in range(begins.size):
        total += reached(bits, begins[piece], sizes[piece], bound)
    return total


@loop
def threshold(bits, begins, sizes, k, low, top, step):
    """What parts the k largest magnitudes of several lists from the rest.

    At least k must be >= low. Returns (t, ties): the k largest are those > t and the first ``ties`` that
    equal t. First ``step`` above low is tried, then further; then the place is narrowed down, by the
    counts on both sides and by halves in turn.
    """
    apart()
    high, above, below = top, np.int64(0), np.int64(-1)
    while True:
        if low >= top:
            return top, k
        middle = low + step if step < top - low else top
        count = _reached_in_all(bits, begins, sizes, middle)
        if count == k:
            return middle - 1, np.int64(0)
        if count < k:
            high, above = middle, count
            break
        low, below = middle, count
        step = step * 8 if step < top >> 4 else top
    turn = 0
    while high - low > 1:
        middle = low + (high - low) // 2
        if below > 0 and turn % 3 < 2:
            share = (below - k) / (below - above)
            middle = min(max(low + np.int64((high - low) * share), low + 1), high - 1)
        turn += 1
        count = _reached_in_all(bits, begins, sizes, middle)
        if count == k:
            return middle - 1, np.int64(0)
        if count > k:
            low, below = middle, count
        else:
            high, above = middle, count
    return low, k - above


@loop
def emit(positions, bits, begin, count, t, ties, mask, top, shift, out_positions, out_bits, at):
    """Of a list those > t and the first ``ties`` that equal t, in order; where the next would go."""
    apart()
    end = begin + count
    for start in range(begin, end, LANES):
        if ties == 0 and t == top:
            break
        word = reaching(bits, None, start, t if ties > 0 else t + 1)
        if end - start < LANES:
            word &= (U(1) << U(end - start)) - U(1)
        while word != U(0):
            i = U(start + trailing_zeros(word))
            word &= word - U(1)
            pattern = np.int64(bits[i])
            if pattern & mask == t:
                if ties == 0:
                    continue
                ties -= 1
            out_positions[U(at)] = positions[i]
            out_bits[U(at)] = pattern >> shift
            at += 1
    return at


@loop
def divide(bits, begins, sizes, t, ties, top, at, ats, shares):
    """Where each of several lists writes its part of the k largest, and how many of the ties are its own."""
    for piece in range(begins.size):
        equal = reached(bits, begins[piece], sizes[piece], max(t, 0))
        above = reached(bits, begins[piece], sizes[piece], t + 1) if t < top else 0
        ats[piece] = at
        shares[piece] = min(ties, equal - above)
        at += above + shares[piece]
        ties -= shares[piece]


@loop
def ranked(positions, bits, count, k, mask, shift, out_positions, out_bits, at):
    """The k largest of few candidates (at most ``FEW``), of equal ones the first; and the least of them."""
    within()
    every = (U(1) << U(count)) - U(1)
    kept = U(0)
    for i in range(count):
        magnitude = np.int64(bits[U(i)]) & mask
        kept |= U(ones(reaching_32(bits, None, np.int64(0), magnitude) & every) <= k) << U(i)
    if ones(kept) != k:
        kept = _ranked_with_equals(bits, count, k, mask)
    least = np.int64(mask)
    for j in range(k):
        i = trailing_zeros(kept)
        kept &= kept - U(1)
        pattern = np.int64(bits[U(i)])
        least = min(least, pattern & mask)
        out_positions[U(at + j)] = positions[U(i)]
        out_bits[U(at + j)] = pattern >> shift
    return least


@loop
def _ranked_with_equals(bits, count, k, mask):
    apart()
    every = (U(1) << U(count)) - U(1)
    kept = U(0)
    for i in range(count):
        magnitude = np.int64(bits[U(i)]) & mask
        reach = reaching_32(bits, None, np.int64(0), magnitude) & every
        above = reaching_32(bits, None, np.int64(0), magnitude + 1) & every if magnitude < mask else U(0)
        before = reach & ~above & ((U(1) << U(i)) - U(1))
        kept |= U(ones(above) + ones(before) < k) << U(i)
    return kept
