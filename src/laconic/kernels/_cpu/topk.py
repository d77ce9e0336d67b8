"""Exact Top-k by magnitude on a CPU, by loops that numba compiles at their first use.

A bound below the k-th magnitude comes first: a guess from what stood near it, in the block before or in the
last round; where there is none, an order statistic of a sample. One pass keeps what reaches the bound, and
the k largest are taken from that. Where the bound misled, a vector that the cache holds is counted until a
better one is found, and a longer one is read again. Which positions come out depends on none of this.

Bit patterns are those of ``_simd``. ``mask`` clears the sign, ``top`` is the largest magnitude there is.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._largest import FEW, emit, ranked, threshold
from laconic.kernels._cpu._short import emit_tied, narrowed
from laconic.kernels._cpu._simd import LANES, apart, number, within
from laconic.kernels._cpu.candidates import SLACK, ZERO, capture, sampled_bound, scan

U = np.uint64
ONE = np.int64(1)
_ATTEMPTS = 2
_SHORT = 1 << 13
"""Up to here the nearest cache holds a vector, and a wrong bound is mended by counting."""


@loop
def fineness(mask):
    """The least change of a magnitude, in its bits, that a guess takes notice of."""
    within()
    return np.int64(1) << (46 if mask > 0x7FFFFFFF else 17)


@loop
def guessed(hint, drift, spread, sure, fine, top):
    """A bound for many numbers, of which a wrong one costs a second reading; 0 where none is sure enough."""
    within()
    if hint < 0 or not sure or spread >= 4 * fine:
        return ZERO
    return min(max(hint + drift - 3 * spread, ONE), top)


@loop
def learned(drift, spread, sure, error, fine):
    """What the next guess is made of, and whether to make it: means that forget, or a new start."""
    within()
    off = abs(error)
    if not sure or off >= 64 * fine:
        return drift + error, 2 * fine, off < 64 * fine
    return drift + (error >> 3), max(spread + ((off - spread) >> 3), fine >> 2), True


@loop
def move(sums, before, numbers, positions, start, end, base, away):
    """Add the numbers [start, end) of those kept to ``sums``, or take them away; what stood there before."""
    within()
    for i in range(start, end):
        place = U(base + positions[U(i)])
        old = sums[place]
        before[U(i)] = old
        sums[place] = old - numbers[U(i)] if away else old + numbers[U(i)]


@loop
def _of_list(
    positions, bits, one, size, found, k, bound, step, mask, top, shift, out_positions, out_bits, at
):
    """The k largest of many candidates, written in order; the least of them."""
    apart()
    one[0], size[0] = 0, found
    t, ties = threshold(bits, one, size, k, bound, top, step)
    emit(positions, bits, ZERO, found, t, ties, mask, top, shift, out_positions, out_bits, at)
    return t


@loop
def _scan_again(x, memory, lo, hi, base, bound, mask, positions, bits, most):
    apart()
    return scan(x, memory, lo, hi, base, bound, mask, positions, bits, ZERO, most)


@loop
def _of_short(
    x, memory, lo, hi, base, k, guess, step, mask, top, shift, positions, bits, one, size, out_positions,
    out_bits, at,
):  # fmt: skip
    """The k largest of x[lo:hi], at most ``_SHORT`` numbers, written from ``at`` on; the least of them."""
    within()
    most, bound = max(2 * k, FEW), guess
    found = scan(x, memory, lo, hi, base, bound, mask, positions, bits, ZERO, most)
    if found < k or (found > most and hi >= LANES):
        # Fewer than 64 numbers at the start of a vector cannot be counted: they are listed whole.
        bound = ZERO
        if hi >= LANES:
            bound, found, above = narrowed(x, memory, lo, hi, k, guess, found, most, step, mask, top)
            if found > most:
                ties = k - above
                emit_tied(x, memory, lo, hi, base, k, bound, ties, mask, shift, out_positions, out_bits, at)
                return bound
        found = _scan_again(x, memory, lo, hi, base, bound, mask, positions, bits, most)
    if found <= FEW:
        return ranked(positions, bits, found, k, mask, shift, out_positions, out_bits, at)
    return _of_list(
        positions, bits, one, size, found, k, bound, step, mask, top, shift, out_positions, out_bits, at
    )


@loop
def _of_long(
    x, memory, lo, hi, base, k, bound, step, salt, mask, top, shift, positions, bits, one, size,
    out_positions, out_bits, at,
):  # fmt: skip
    """As ``_of_short``, of more numbers; a bound of 0 is none."""
    apart()
    attempt = ZERO
    room = min(hi - lo, 2 * k + min(2 * k, 1 << 20) + 4096) + SLACK
    while True:
        if bound == 0 and attempt < _ATTEMPTS:
            bound = sampled_bound(x, memory, lo, hi, k, salt + attempt, top, bits, one, size)
            attempt += 1
        bound = max(bound, ONE)
        found = capture(x, memory, lo, hi, base, k, bound, mask, top, positions, bits, ZERO, room, one, size)
        if found >= k:
            return _of_list(
                positions, bits, one, size, found, k, bound, step, mask, top, shift, out_positions, out_bits,
                at,
            )  # fmt: skip
        if bound == ONE:
            # All others are zeros.
            emit_tied(x, memory, lo, hi, base, k, ZERO, k - found, mask, shift, out_positions, out_bits, at)
            return ZERO
        bound = ZERO


@loop
def select_rows(
    rows, hints, x, memory, salt, mask, top, shift, positions, bits, one, size, out_positions, out_bits,
    sums, before, numbers, away,
):  # fmt: skip
    """The k largest of each block of each row of a plan: (start, length, base, block, count, last, at).

    They are written from ``at`` on, positions less ``base``. ``hints`` are the k-th magnitudes of the last
    round, < 0 where there was none: all may have moved by the same factor since, so the k-th magnitude is
    looked for at its hint plus the ``drift`` of those before it, less some times their ``spread``.

    Where ``sums`` is not empty, what is kept of a block is added to it, or taken away, as long as the block
    is in the cache; ``numbers`` are ``out_bits`` as numbers.
    """
    fine = fineness(mask)
    drift, spread, sure = ZERO, fine, rows.size < 0  # a plain False is another type
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
            elif n <= _SHORT:
                # A wrong guess costs little, so the least spread is no reason for a margin.
                guess = hint + drift - 3 * (spread - (fine >> 2)) if hint >= 0 else ONE
                guess = min(max(guess, ONE), top)
                t = _of_short(
                    x, memory, lo, hi, base, k, guess, max(spread, fine), mask, top, shift, positions, bits,
                    one, size, out_positions, out_bits, at,
                )  # fmt: skip
            else:
                bound = guessed(hint, drift, spread, sure, fine, top)
                t = _of_long(
                    x, memory, lo, hi, base, k, bound, 2 * fine, salt, mask, top, shift, positions, bits, one,
                    size, out_positions, out_bits, at,
                )  # fmt: skip
            if sums.size > 0:
                move(sums, before, numbers, out_positions, at, at + k, base, away)
            at += k
            if n < block or k == n:
                continue
            if hint < 0:
                hint, drift, spread, sure = t, ZERO, 2 * fine, True
                late = t
                continue
            # Of blocks the one before: a guess that waits for the last one stops the processor.
            error = (late if block < length else t) - hint - drift
            late = t
            drift, spread, sure = learned(drift, spread, sure, error, fine)
        if hint >= 0:
            hints[row] = t if block >= length else hint + drift
