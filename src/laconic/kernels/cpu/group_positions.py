"""The loops of positions of all segments, compiled by numba at their first use.

``reference`` defines them. Nothing is written outside the bytes of the plan, whatever the
positions are; nothing is read outside, whatever the bytes are.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu._simd import ones, trailing_zeros
from laconic.kernels.cpu._words import load_word, put_tail, store_word

U = np.uint64
_CELLS, _ELIAS_FANO, _BITMAP = 1, 2, 3


@loop
def put(positions, plan, out):
    """Write both streams; returns whether the positions ascend within their segments and keep to cells."""
    low_bytes = (plan.lows[-1] + 7) >> 3
    word, filled, at = U(0), 0, np.int64(0)
    # The high stream's current word and its number; places ascend, so each word is written once.
    marks, mark_at = U(0), np.int64(0)
    good = True
    for s in range(plan.used.size):
        form, width, d = plan.forms[s], plan.widths[s], plan.numels[s]
        mask = (U(1) << U(width)) - U(1)
        start, end = plan.highs[s], plan.highs[s + 1]
        own = positions[plan.bounds[s] : plan.bounds[s] + plan.used[s]]
        last, first = np.int64(-1), np.int64(0)
        in_cell, length = np.int64(0), plan.cell_lengths[s]
        for i in range(own.size):
            p = own[i]
            good &= p > last
            last = p
            if form == _CELLS:
                if in_cell == plan.cell_counts[s]:
                    in_cell = 0
                    first += length
                in_cell += 1
                p -= first
                good &= (p >= 0) & (p < length)
            elif form >= _ELIAS_FANO:
                place = start + p
                if form == _ELIAS_FANO:
                    place = start + (p >> width) + i
                if place >> 6 != mark_at:
                    if place >= end or place >> 6 < mark_at:
                        return False
                    store_word(out, low_bytes + 8 * mark_at, marks)
                    for between in range(mark_at + 1, place >> 6):
                        store_word(out, low_bytes + 8 * between, U(0))
                    marks, mark_at = U(0), place >> 6
                marks |= U(1) << U(place & 63)
            bits = U(p) & mask
            word |= bits << U(filled)
            filled += width
            if filled >= 64:
                store_word(out, at, word)
                at += 8
                filled -= 64
                word = bits >> U(width - filled) if filled > 0 else U(0)
        good &= last < d
    put_tail(out, at, low_bytes, word)
    put_tail(out, low_bytes + 8 * mark_at, out.size, marks)
    return good


@loop
def get(data, plan, positions):  # noqa: PLR0915
    """Read both streams, after which 8 more bytes can be read.

    Returns whether the positions ascend within their segments and keep to cells.
    """
    low_bytes = (plan.lows[-1] + 7) >> 3
    # As many ones as there are may be followed without a look at where the bytes end. Counting them in a
    # function of its own makes the loops below slower by an eighth.
    expected = np.int64(0)
    for s in range(plan.used.size):
        if plan.forms[s] >= _ELIAS_FANO:
            expected += plan.used[s]
    found, whole = np.int64(0), low_bytes + (plan.highs[-1] >> 6 << 3)
    for start in range(low_bytes, whole, 8):
        found += ones(load_word(data, start))
    for start in range(whole, low_bytes + ((plan.highs[-1] + 7) >> 3)):
        found += ones(U(data[start]))
    if found != expected:
        return False
    at, marks = low_bytes - 8, U(0)
    good = True
    for s in range(plan.used.size):
        form, width, d = plan.forms[s], plan.widths[s], plan.numels[s]
        mask = (U(1) << U(width)) - U(1)
        own = positions[plan.bounds[s] : plan.bounds[s + 1]]
        used, last, bit = plan.used[s], np.int64(-1), plan.lows[s]
        # The place of the word's first bit, counted from the segment's first.
        place, first = np.int64(-1), 8 * (at - low_bytes) - plan.highs[s]
        if form == _ELIAS_FANO:
            for i in range(used):
                while marks == U(0):
                    at += 8
                    first += 64
                    marks = load_word(data, at)
                place = first + trailing_zeros(marks)
                marks &= marks - U(1)
                p = (place - i) << width | np.int64(load_word(data, bit >> 3) >> U(bit & 7) & mask)
                bit += width
                good &= p > last
                last = p
                own[i] = p
        elif form == _BITMAP:
            for i in range(used):
                while marks == U(0):
                    at += 8
                    first += 64
                    marks = load_word(data, at)
                place = first + trailing_zeros(marks)
                marks &= marks - U(1)
                good &= place >= 0
                own[i] = place
        elif form == _CELLS:
            in_cell, first = np.int64(0), np.int64(0)
            for i in range(used):
                if in_cell == plan.cell_counts[s]:
                    in_cell = 0
                    first += plan.cell_lengths[s]
                in_cell += 1
                p = np.int64(load_word(data, bit >> 3) >> U(bit & 7) & mask)
                bit += width
                good &= p < plan.cell_lengths[s]
                p += first
                good &= p > last
                last = p
                own[i] = p
        else:
            for i in range(used):
                own[i] = i
        good &= (last < d) & (place < plan.highs[s + 1] - plan.highs[s])
        for i in range(used, own.size):
            own[i] = d
    return good
