"""Exact Top-k by magnitude on a CPU, by loops that numba compiles at their first use.

A bound below the k-th magnitude comes first: a guess from what stood near it, in the block before or in the
last round; where there is none or it misled, an order statistic of a sample. One pass then keeps what
reaches the bound. Where the list of candidates is full, only its own k largest stay, of equal ones the
first, and the bound becomes what a later number must reach to displace one of them: ties and hostile data
cost no second pass. Last, the k largest are taken from the candidates. Which positions come out depends on
none of this.

Bit patterns are those of ``_simd``. ``mask`` clears the sign, ``top`` is the largest magnitude there is.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import math

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._largest import emit, threshold
from laconic.kernels._cpu._simd import (
    LANES,
    ahead,
    apart,
    number,
    ones,
    reaching,
    reaching_32,
    trailing_zeros,
    within,
)

U = np.uint64
ZERO = np.int64(0)
"""A plain 0 is another type to numba, and everything would be compiled for it once more."""
MOST_SAMPLES = 1 << 16
_SAMPLED = 1 << 8
_SIGMAS = 4.5
_STRETCH = 1 << 11
"""Numbers whose candidates are found together."""
SLACK = _STRETCH + 2 * LANES
_ATTEMPTS = 2
_FEW = 32
"""Candidates up to here are ranked one by one."""
_SHORT = 1 << 13
"""Up to here far too many candidates cost less than a sample."""


@loop
def scan(x, memory, lo, hi, base, bound, mask, positions, bits, at):
    """Candidates of x[lo:hi], at most ``_STRETCH`` numbers: all >= bound; where the next would go."""
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
    if whole < hi and hi >= LANES:
        # The last numbers again with some of those before, which are not counted twice.
        word = reaching(x, memory, hi - LANES, bound) >> U(LANES - (hi - whole))
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
    for start in range(lo, hi, _STRETCH):
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
        stop = min(start + _STRETCH, hi)
        count = scan(x, memory, start, stop, base, bound, mask, positions, bits, begin + count) - begin
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


@loop
def _ranked(positions, bits, count, k, mask, shift, out_positions, out_bits, at):
    """The k largest of few candidates, and the least of them; (False, 0) where the k-th has equals."""
    within()
    every = (U(1) << U(count)) - U(1)
    kept = U(0)
    for i in range(count):
        magnitude = np.int64(bits[U(i)]) & mask
        kept |= U(ones(reaching_32(bits, None, ZERO, magnitude) & every) <= k) << U(i)
    if ones(kept) != k:
        return False, ZERO
    least = np.int64(mask)
    for j in range(k):
        i = trailing_zeros(kept)
        kept &= kept - U(1)
        pattern = np.int64(bits[U(i)])
        least = min(least, pattern & mask)
        out_positions[U(at + j)] = positions[U(i)]
        out_bits[U(at + j)] = pattern >> shift
    return True, least


@loop
def _learned(drift, spread, sure, error, fine):
    """What the next guess is made of, and whether to make it: means that forget, or a new start."""
    within()
    off = abs(error)
    if not sure or off >= 64 * fine:
        return drift + error, 2 * fine, off < 64 * fine
    return drift + (error >> 3), max(spread + ((off - spread) >> 3), fine >> 2), True


@loop
def select_rows(
    rows, hints, x, memory, salt, mask, top, shift, positions, bits, one, size, out_positions, out_bits
):
    """The k largest of each block of each row of a plan: (start, length, base, block, count, last, at).

    They are written from ``at`` on, positions less ``base``. ``hints`` are the k-th magnitudes of the last
    round, < 0 where there was none: all may have moved by the same factor since, so the k-th magnitude is
    looked for at its hint plus the ``drift`` of those before it, less some times their ``spread``.
    """
    fine = np.int64(1) << (46 if mask > 0x7FFFFFFF else 17)
    drift, spread, sure = ZERO, fine, False
    for row in range(rows.shape[0]):
        start, length, base, block = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        count, last, at = rows[row, 4], rows[row, 5], rows[row, 6]
        t = hint = hints[row] if hints[row] <= top else np.int64(-1)
        late = hint + drift
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
            guessed = hint >= 0 and sure and spread < (16 if n <= _SHORT else 4) * fine
            attempt = -1 if guessed else 0
            found, bound = np.int64(-1), ZERO
            while found < k:
                bound = ZERO
                if attempt < 0:
                    bound = min(max(hint + drift - 3 * spread, ZERO), top)
                elif attempt < _ATTEMPTS and n >= _SAMPLED:
                    bound = sampled_bound(x, memory, lo, hi, k, salt + attempt, top, bits, one, size)
                if n <= _STRETCH:
                    found = scan(x, memory, lo, hi, base, bound, mask, positions, bits, ZERO)
                else:
                    room = min(n, 2 * k + min(2 * k, 1 << 20) + 4096) + SLACK
                    found = capture(
                        x, memory, lo, hi, base, k, bound, mask, top, positions, bits, ZERO, room, one, size
                    )
                attempt += 1
            done, t = False, ZERO
            if found <= _FEW:
                done, t = _ranked(positions, bits, found, k, mask, shift, out_positions, out_bits, at)
            if not done:
                one[0], size[0] = 0, found
                t, ties = threshold(bits, one, size, k, bound, top, fine * 2)
                emit(positions, bits, ZERO, found, t, ties, mask, top, shift, out_positions, out_bits, at)
            at += k
            if n < block:
                continue
            if hint < 0:
                hint, drift, spread, sure = t, ZERO, 2 * fine, True
                late = t
                continue
            # Of blocks the one before: a guess that waits for the last one stops the processor.
            error = (late if block < length else t) - hint - drift
            late = t
            drift, spread, sure = _learned(drift, spread, sure, error, fine)
        if hint >= 0:
            hints[row] = t if block >= length else hint + drift
