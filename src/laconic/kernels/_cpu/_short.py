"""The k largest of a short vector for which a guessed bound was wrong: a better one is found by counting.

A vector here fits the nearest cache, so counting what reaches a bound takes a fraction of writing it down.
Bit patterns are those of ``_simd``.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._simd import LANES, apart, leading_zeros, number, ones, trailing_zeros
from laconic.kernels._cpu.candidates import word_at

U = np.uint64
ONE = np.int64(1)


@loop
def _count(x, memory, lo, hi, bound):
    total = np.int64(0)
    for i in range(lo, hi, LANES):
        total += ones(word_at(x, memory, i, hi, bound))
    return total


@loop
def _one_between(x, memory, lo, hi, turn, low, high, mask):
    """The magnitude of a number in [low, high), of which there is one; each turn begins elsewhere to look."""
    words = (hi - lo + LANES - 1) // LANES
    for j in range(words):
        i = lo + (j + turn * 5) % words * LANES
        word = word_at(x, memory, i, hi, low) & ~word_at(x, memory, i, hi, high)
        if word != U(0):
            lane = trailing_zeros(word) if turn % 3 == 0 else 63 - leading_zeros(word)
            return number(x, memory, i + lane) & mask
    return low


@loop
def narrowed(x, memory, lo, hi, k, bound, found, most, step, mask, top):
    """A magnitude that at least k numbers reach, and at most ``most``; or as near as ties allow.

    Args:
        bound, found: where to begin, and how many reach it.
        step: how far to look first.

    Returns:
        The magnitude, how many reach it, and how many exceed it where those are more than ``most``. It is 0
        where fewer than k are not.
    """
    apart()
    low, below, high, above = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(0)
    turn = np.int64(0)
    while True:
        if found >= k:
            low, below = bound, found
        else:
            high, above = bound, found
        if low >= 0 and (below <= most or low >= top or high == low + 1):
            return low, below, above
        if low < 0:
            if high <= ONE:
                return high - ONE, hi - lo, above
            bound = max(high - step, ONE)
        elif high < 0:
            bound = low + step if step < top - low else top
        else:
            # Numbers that are there part ties and steps; counts on both sides find what is smooth sooner.
            if turn % 3 < 2:
                bound = _one_between(x, memory, lo, hi, turn, low, high, mask)
                bound = bound if bound > low else low + 1
            else:
                # Not the k-th itself: anything that few enough reach will do.
                share = (below - (k + most) // 2) / (below - above)
                bound = min(max(low + np.int64((high - low) * share), low + 1), high - 1)
            turn += 1
        step = step * 8 if step < top >> 4 else top
        found = _count(x, memory, lo, hi, bound)


@loop
def emit_tied(x, memory, lo, hi, base, k, t, ties, mask, shift, out_positions, out_bits, at):
    """The k largest in order, of which the first ``ties`` of those that equal t."""
    apart()
    end = at + k
    for i in range(lo, hi, LANES):
        if at == end:
            break
        word = word_at(x, memory, i, hi, t if ties > 0 else t + 1)
        while word != U(0):
            place = i + trailing_zeros(word)
            word &= word - U(1)
            pattern = number(x, memory, place)
            if pattern & mask == t:
                if ties == 0:
                    continue
                ties -= 1
            out_positions[U(at)] = place - base
            out_bits[U(at)] = pattern >> shift
            at += 1
