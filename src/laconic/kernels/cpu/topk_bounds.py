"""Bounds below the k-th magnitude: guesses from rounds and blocks before, samples, and counting.

A bound too low costs longer lists, one too high another reading; none changes what is selected.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import math

import numpy as np

from laconic.kernels.cpu._jit import inlined, inner_loop, loop
from laconic.kernels.cpu._simd import (
    LANES,
    leading_zeros,
    never_inlined,
    reaching,
    top,
    trailing_zeros,
)
from laconic.kernels.cpu.topk_lists import reached, threshold
from laconic.kernels.cpu.topk_tiles import number

U = np.uint64
ZERO, ONE = np.int64(0), np.int64(1)
"""A plain 0 is another type to numba, and everything would be compiled for it once more."""
MOST_SAMPLES = 1 << 16
_SIGMAS = 4.5


@inlined
def fineness(largest):
    """The least change of a magnitude, in its bits, that a guess takes notice of."""
    return ONE << (46 if largest > 0x7FFFFFFF else 17)


@inlined
def guessed(hint, drift, spread, sure, fine, largest):
    """A bound for many numbers, of which a wrong one costs a second reading; 0 where none is sure enough.

    ``hint`` is the k-th magnitude of the last round, ``drift`` what it moved by on average, ``spread`` how
    far that was off.
    """
    if hint < 0 or not sure or spread >= 4 * fine:
        return ZERO
    return min(max(hint + drift - 3 * spread, ONE), largest)


@inlined
def learned(drift, spread, sure, error, fine):
    """What the next guess is made of, and whether to make it: means that forget, or a new start."""
    off = abs(error)
    if not sure or off >= 64 * fine:
        return drift + error, 2 * fine, off < 64 * fine
    return drift + (error >> 3), max(spread + ((off - spread) >> 3), fine >> 2), True


@inlined
def _sample(n, k):
    """How many numbers of n to draw, one of each stretch of as many; and which of them is the bound."""
    share = k / n
    m = np.int64((n * math.sqrt(share)) ** (2 / 3))
    m = min(max(m, min(n // 16, np.int64(8 / share), 8192)), MOST_SAMPLES)
    rank = np.int64(math.ceil(m * share + _SIGMAS * math.sqrt(m * share * (1 - share)) + 1))
    return m, rank


@inlined
def _sampled_place(i, stride, salt):
    """The place in stretch i, by a fixed mixing of ``salt`` and i."""
    mixed = (U(i + 1) + U(salt) * U(0xD1342543DE82EF95)) * U(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> U(29))) * U(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> U(32))) * U(0x94D049BB133111EB)
    return i * stride + np.int64(((mixed >> U(32)) * U(stride)) >> U(32))


def sampled_places(n, k, salt):
    """Where ``sampled_bound`` looks; for tests and benchmarks that mean to mislead it."""
    places = np.empty(MOST_SAMPLES, np.int64)
    return places[: _put_places(n, k, salt, places)]


@loop
def _put_places(n, k, salt, places):
    m, rank = _sample(n, k)
    if rank >= m:
        return 0
    for i in range(m):
        places[i] = _sampled_place(i, n // m, salt)
    return m


@inlined
def sampled_bound(source, lo, n, k, salt, scratch):
    """An order statistic of a sample, which at least k of n numbers from ``lo`` on most probably reach."""
    m, rank = _sample(n, k)
    if rank >= m:
        return ZERO
    bits, pieces = scratch.lists.bits, scratch.pieces
    for i in range(m):
        bits[i] = number(source, lo + _sampled_place(i, n // m, salt), bits)
    pieces.begins[0], pieces.sizes[0] = 0, m
    t, ties = threshold(bits, pieces, rank, ZERO, top(bits) // 2)
    return t if ties > 0 else t + 1


@inlined
def _one_between(bits, count, turn, low, high):
    """The magnitude of a pattern in [low, high), of which there is one; each turn looks from elsewhere."""
    words = (count + LANES - 1) // LANES
    for j in range(words):
        i = (j + turn * 5) % words * LANES
        word = reaching(bits, i, low) & ~reaching(bits, i, high)
        if count - i < LANES:
            word &= (U(1) << U(count - i)) - U(1)
        if word != U(0):
            lane = trailing_zeros(word) if turn % 3 == 0 else 63 - leading_zeros(word)
            return bits[i + lane] & top(bits)
    return low


@inner_loop
def narrowed(bits, count, k, bound, found, most, step):
    """A magnitude that at least k of a tile's numbers reach, and at most ``most``; or as near as ties allow.

    A tile fits the first cache, so counting what reaches a bound takes a fraction of writing it down.

    Args:
        bits, count: the tile.
        bound, found: where to begin, and how many reach it.
        step: how far to look first.

    Returns:
        The magnitude, how many reach it, and how many exceed it where those are more than ``most``. It is 0
        where fewer than k are not.
    """
    never_inlined()
    low, below, high, above = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(0)
    turn = np.int64(0)
    while True:
        if found >= k:
            low, below = bound, found
        else:
            high, above = bound, found
        if low >= 0 and (below <= most or low >= top(bits) or high == low + 1):
            return low, below, above
        if low < 0:
            if high <= ONE:
                return high - ONE, count, above
            bound = max(high - step, ONE)
        elif high < 0:
            bound = low + step if step < top(bits) - low else top(bits)
        else:
            # Numbers that are there part ties and steps; counts on both sides find what is smooth sooner.
            if turn % 3 < 2:
                bound = _one_between(bits, count, turn, low, high)
                bound = bound if bound > low else low + 1
            else:
                # Not the k-th itself: anything that few enough reach will do.
                share = (below - (k + most) // 2) / (below - above)
                bound = min(max(low + np.int64((high - low) * share), low + 1), high - 1)
            turn += 1
        step = step * 8 if step < top(bits) >> 4 else top(bits)
        found = reached(bits, ZERO, count, bound)
