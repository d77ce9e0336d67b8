"""Exact Top-k by magnitude on a CPU, by loops that numba compiles at their first use.

A bound below the k-th magnitude comes first: of a short stretch, from the largest magnitude of each of many
groups; of a long one, from a sample. One pass then keeps what reaches the bound. Where the list of
candidates is full, only its own k largest stay, of equal ones the first, and the bound becomes what a later
number must reach to displace one of them: ties and hostile data cost no second pass. Last, the k largest
are taken from the candidates. Which positions come out depends on none of this.

Bit patterns are those of ``_simd``. ``mask`` clears the sign, ``top`` is the largest magnitude there is.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import math

import numpy as np
from numba import njit

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._simd import (
    LANES,
    ahead,
    apart,
    maxima_of_1,
    maxima_of_4,
    number,
    ones,
    reaching,
    trailing_zeros,
)

U = np.uint64
_GROUPED = 1 << 15
"""Stretches up to here are read twice, the second time from the cache."""
MOST_SAMPLES = 1 << 16
_SAMPLED = 1 << 10
_SIGMAS = 4.5
_STRETCH = 1 << 11
"""Numbers whose candidates are found together."""
SLACK = _STRETCH + 2 * LANES
_ATTEMPTS = 2
_FEW = 1 << 9


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
def capture(x, memory, lo, hi, base, k, bound, mask, top, positions, bits, begin, room, one, size):
    """Candidates of x[lo:hi]: all >= bound, or the k largest and some; their number.

    They are written from ``begin`` on, less than ``room`` of them (room >= min(hi - lo, k) + SLACK).
    """
    apart()
    count = np.int64(0)
    full = room - SLACK
    low = bound
    step = np.int64(1) << (50 if mask > 0x7FFFFFFF else 20)
    for start in range(lo, hi, _STRETCH):
        if count > full:
            one[0], size[0] = begin, count
            t, ties = threshold(bits, one, size, k, low, top, step)
            count = emit(positions, bits, begin, count, t, ties, mask, top, 0, positions, bits, begin) - begin
            if t == top:
                break
            # Of later numbers that equal the k-th none is wanted, so they need not be found.
            bound, low = t + 1, t if ties > 0 else t + 1
        stop = min(start + _STRETCH, hi)
        first = at = begin + count
        whole = start + (stop - start) // LANES * LANES
        for i in range(start, whole, LANES):
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
        if whole < stop and stop - lo >= LANES:
            # The last numbers again with some of those before, which are not counted twice.
            word = reaching(x, memory, stop - LANES, bound) >> U(LANES - (stop - whole))
            while word != U(0):
                positions[at] = whole - base + trailing_zeros(word)
                word &= word - U(1)
                at += 1
        elif whole < stop:
            for i in range(whole, stop):
                positions[at] = i - base
                at += number(x, memory, i) & mask >= bound
        # What was just read is still in the nearest cache.
        for i in range(first, at):
            bits[U(i)] = number(x, memory, base + positions[U(i)])
        count = at - begin
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


@njit(inline="always")
def _grouped_bound(x, memory, lo, hi, k, guess, fine, top, bits):
    """A magnitude that at least k of x[lo:hi] reach: about the k-th of the maxima of at least 2 k groups.

    The search starts at a guess, the bound of the stretch before, and ends with steps of ``fine``.
    """
    groups = (2 * k + LANES - 1) // LANES * LANES
    windows = (hi - lo) // groups
    first = lo
    for group in range(0, groups, LANES):
        for i in range(0, windows - 3, 4):
            for j in range(4):
                ahead(x, memory, first + (i + j) * LANES)
            maxima_of_4(x, memory, first + i * LANES, bits, group, i == 0)
        if windows < 4:
            for i in range(windows):
                maxima_of_1(x, memory, first + i * LANES, bits, group, i == 0)
        first += windows * LANES
    low, high = np.int64(0), top
    middle, step = guess, fine
    up, down = False, False
    while high - low > fine:
        count = np.int64(0)
        for group in range(0, groups, LANES):
            count += ones(reaching(bits, None, group, middle))
        if count >= k:
            low, up = middle, True
            if count == k:
                break
        else:
            high, down = middle, True
        if up and down:
            middle = low + (high - low) // 2
        else:
            step = min(step, high - low - 1)
            middle = low + step if up else high - step
            step = step * 4 if step < top >> 4 else top
    return low


@njit(inline="always")
def _finish_few(positions, bits, count, k, mask, shift, out_positions, out_bits, at):
    """The k largest of little more than k: the smallest leave, of equal ones the last."""
    while count > k:
        least, place = np.int64(bits[0]) & mask, np.int64(0)
        for i in range(1, count):
            magnitude = np.int64(bits[U(i)]) & mask
            if magnitude <= least:
                least, place = magnitude, np.int64(i)
        count -= 1
        for i in range(place, count):
            positions[U(i)], bits[U(i)] = positions[U(i + 1)], bits[U(i + 1)]
    for i in range(k):
        out_positions[U(at + i)] = positions[U(i)]
        out_bits[U(at + i)] = np.int64(bits[U(i)]) >> shift


@loop
def select_rows(rows, x, memory, salt, mask, top, shift, positions, bits, one, size, out_positions, out_bits):
    """The k largest of each block of each row of a plan: (start, length, base, block, count, last, at).

    They are written from ``at`` on, positions less ``base``.
    """
    guess = top // 2
    fine = np.int64(1) << (46 if mask > 0x7FFFFFFF else 17)
    for row in range(rows.shape[0]):
        start, length, base, block = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        count, last, at = rows[row, 4], rows[row, 5], rows[row, 6]
        for lo in range(start, start + length, block):
            hi = min(lo + block, start + length)
            n = hi - lo
            k = count if n == block else last
            if k == n:
                for i in range(n):
                    out_positions[at + i] = lo + i - base
                    out_bits[at + i] = number(x, memory, lo + i) >> shift
                at += k
                continue
            grouped = n <= _GROUPED and (2 * k + LANES - 1) // LANES * LANES <= n
            room = min(n, 2 * k + min(2 * k, 1 << 20) + 4096) + SLACK
            bound, found = np.int64(0), np.int64(-1)
            attempt = 0
            while found < k:
                bound = np.int64(0)
                if grouped:
                    bound = _grouped_bound(x, memory, lo, hi, k, guess, fine, top, bits)
                    guess = max(bound, np.int64(1))
                elif attempt < _ATTEMPTS and n >= _SAMPLED:
                    bound = sampled_bound(x, memory, lo, hi, k, salt + attempt, top, bits, one, size)
                found = capture(
                    x, memory, lo, hi, base, k, bound, mask, top, positions, bits, 0, room, one, size
                )
                attempt += 1
            if (found - k) * found <= _FEW:
                _finish_few(positions, bits, found, k, mask, shift, out_positions, out_bits, at)
            else:
                one[0], size[0] = 0, found
                t, ties = threshold(bits, one, size, k, bound, top, fine * 2)
                emit(positions, bits, 0, found, t, ties, mask, top, shift, out_positions, out_bits, at)
            at += k


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
