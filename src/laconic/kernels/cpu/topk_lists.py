"""Lists of bit patterns: counting what reaches a bound, threshold of the k largest, writing these in order.

A list is a stretch of an array of patterns, as a tile is. Arrays have ``LANES`` places to spare at their end,
for 64 places are read at once.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from typing import NamedTuple

import numpy as np
from numba import njit

from laconic.kernels.cpu._jit import inner_loop
from laconic.kernels.cpu._simd import (
    LANES,
    always_inlined,
    never_inlined,
    ones,
    reaching,
    reaching_32,
    top,
    trailing_zeros,
)

U = np.uint64
FEW = 32
"""Candidates up to here are ranked one by one."""


class Lists(NamedTuple):
    """Numbers that are kept, or may be: int64 positions, and bit patterns (int32 or int64)."""

    positions: np.ndarray
    bits: np.ndarray


class Pieces(NamedTuple):
    """Several lists in the same arrays: where each begins, and its size; both int64."""

    begins: np.ndarray
    sizes: np.ndarray


@inner_loop
def reached(bits, begin, count, bound):
    """How many of ``bits[begin : begin + count]`` have a magnitude >= bound."""
    never_inlined()
    total = np.int64(0)
    whole = begin + count // LANES * LANES
    for start in range(begin, whole, LANES):
        total += ones(reaching(bits, start, bound))
    rest = begin + count - whole
    if rest > 0:
        total += ones(reaching(bits, whole, bound) & ((U(1) << U(rest)) - U(1)))
    return total


@njit(inline="always")
def _reached_in_all(bits, pieces, bound):
    total = np.int64(0)
    for piece in range(pieces.begins.size):
        total += reached(bits, pieces.begins[piece], pieces.sizes[piece], bound)
    return total


@inner_loop
def threshold(bits, pieces, k, low, step):
    """What parts the k largest magnitudes of several lists from the rest.

    At least k must be >= low. Returns (t, ties): the k largest are those > t and the first ``ties`` that
    equal t. First ``step`` above low is tried, then further; then the place is narrowed down, by the
    counts on both sides and by halves in turn.
    """
    never_inlined()
    high, above, below = top(bits), np.int64(0), np.int64(-1)
    while True:
        if low >= top(bits):
            return low, k
        middle = low + step if step < top(bits) - low else top(bits)
        count = _reached_in_all(bits, pieces, middle)
        if count == k:
            return middle - 1, np.int64(0)
        if count < k:
            high, above = middle, count
            break
        low, below = middle, count
        step = step * 8 if step < top(bits) >> 4 else top(bits)
    turn = 0
    while high - low > 1:
        middle = low + (high - low) // 2
        if below > 0 and turn % 3 < 2:
            share = (below - k) / (below - above)
            middle = min(max(low + np.int64((high - low) * share), low + 1), high - 1)
        turn += 1
        count = _reached_in_all(bits, pieces, middle)
        if count == k:
            return middle - 1, np.int64(0)
        if count > k:
            low, below = middle, count
        else:
            high, above = middle, count
    return low, k - above


@inner_loop
def emit(lists, begin, count, t, ties, out, at):
    """Of a list those > t and the first ``ties`` that equal t, in order; where the next would go."""
    never_inlined()
    end = begin + count
    for start in range(begin, end, LANES):
        if ties == 0 and t == top(lists.bits):
            break
        word = reaching(lists.bits, start, t if ties > 0 else t + 1)
        if end - start < LANES:
            word &= (U(1) << U(end - start)) - U(1)
        while word != U(0):
            i = U(start + trailing_zeros(word))
            word &= word - U(1)
            pattern = lists.bits[i]
            if pattern & top(lists.bits) == t:
                if ties == 0:
                    continue
                ties -= 1
            out.positions[U(at)] = lists.positions[i]
            out.bits[U(at)] = pattern
            at += 1
    return at


@inner_loop
def emit_tile(bits, count, first, t, ties, out, at, end):
    """As ``emit``, of a tile whose numbers have the positions from ``first`` on; at most up to ``end``.

    Returns:
        Where the next would go, and how many ties are left.
    """
    never_inlined()
    for start in range(0, count, LANES):
        if at == end:
            break
        word = reaching(bits, start, t if ties > 0 else t + 1)
        if count - start < LANES:
            word &= (U(1) << U(count - start)) - U(1)
        while word != U(0):
            i = start + trailing_zeros(word)
            word &= word - U(1)
            pattern = bits[U(i)]
            if pattern & top(bits) == t:
                if ties == 0:
                    continue
                ties -= 1
            out.positions[U(at)] = first + i
            out.bits[U(at)] = pattern
            at += 1
    return at, ties


@inner_loop
def divide(bits, pieces, t, ties, at, ats, shares):
    """Where each of several lists writes its part of the k largest, and how many of the ties are its own."""
    for piece in range(pieces.begins.size):
        equal = reached(bits, pieces.begins[piece], pieces.sizes[piece], max(t, 0))
        above = np.int64(0)
        if t < top(bits):
            above = reached(bits, pieces.begins[piece], pieces.sizes[piece], t + 1)
        ats[piece] = at
        shares[piece] = min(ties, equal - above)
        at += above + shares[piece]
        ties -= shares[piece]


@inner_loop
def ranked(lists, count, k, out, at):
    """The k largest of few candidates (at most ``FEW``), of equal ones the first; and the least of them."""
    always_inlined()
    bits = lists.bits
    every = (U(1) << U(count)) - U(1)
    kept = U(0)
    for i in range(count):
        magnitude = np.int64(bits[U(i)]) & top(bits)
        kept |= U(ones(reaching_32(bits, np.int64(0), magnitude) & every) <= k) << U(i)
    if ones(kept) != k:
        kept = _ranked_with_equals(bits, count, k)
    least = top(bits)
    for j in range(k):
        i = trailing_zeros(kept)
        kept &= kept - U(1)
        pattern = bits[U(i)]
        least = min(least, pattern & top(bits))
        out.positions[U(at + j)] = lists.positions[U(i)]
        out.bits[U(at + j)] = pattern
    return least


@inner_loop
def _ranked_with_equals(bits, count, k):
    never_inlined()
    every = (U(1) << U(count)) - U(1)
    kept = U(0)
    for i in range(count):
        magnitude = np.int64(bits[U(i)]) & top(bits)
        reach = reaching_32(bits, np.int64(0), magnitude) & every
        above = reaching_32(bits, np.int64(0), magnitude + 1) & every if magnitude < top(bits) else U(0)
        before = reach & ~above & ((U(1) << U(i)) - U(1))
        kept |= U(ones(above) + ones(before) < k) << U(i)
    return kept
