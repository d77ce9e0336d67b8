"""Candidates: the numbers that reach a bound, with their positions."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inlined, inner_loop
from laconic.kernels.cpu._simd import (
    LANES,
    never_inlined,
    ones,
    pattern,
    reach,
    top,
    trailing_zeros,
)
from laconic.kernels.cpu.topk_lists import emit, threshold
from laconic.kernels.cpu.topk_tiles import line, one
from laconic.kernels.cpu.topk_updates import produce

U = np.uint64
STRETCH = np.int64(1 << 11)
"""Numbers of a long segment whose candidates are found together."""
SLACK = int(STRETCH) + 2 * LANES


@inlined
def room_for(k, n):
    """Room for candidates of which k of n are kept, beside ``SLACK``."""
    return min(n, 2 * k + min(2 * k, 1 << 20) + 4096)


@inner_loop
def scan(source, start, count, first, bound, lists, at, most):
    """List the candidates among numbers; where the next would go.

    Args:
        source, start, count: which numbers.
        first: the position of the first.
        bound: what a candidate reaches.
        lists, at: where candidates are written.
        most: it gives up at more.
    """
    never_inlined()
    begin = at
    if count < LANES:
        for i in range(count):
            lists.positions[U(at)] = first + i
            at += pattern(one(source, start + i, lists.bits)) & top(lists.bits) >= bound
    else:
        whole = count // LANES * LANES
        for i in range(0, whole, LANES):
            word = reach(line(source, start + i, lists.bits), bound)
            found = ones(word)
            # Most words have few ones. Four are written without asking, for a wrong guess costs more.
            for j in range(4):
                lists.positions[U(at + j)] = first + i + trailing_zeros(word)
                word &= word - U(1)
            for j in range(4, found):
                lists.positions[U(at + j)] = first + i + trailing_zeros(word)
                word &= word - U(1)
            at += found
            if at - begin > most:
                return at
        if whole < count:
            # Some of those before again, and shifted out: what follows is another's.
            word = reach(line(source, start + count - LANES, lists.bits), bound) >> U(whole + LANES - count)
            while word != U(0):
                lists.positions[U(at)] = first + whole + trailing_zeros(word)
                word &= word - U(1)
                at += 1
    # What was just read is still in the first cache.
    for i in range(begin, at):
        place = start - first + lists.positions[U(i)]
        lists.bits[U(i)] = pattern(one(source, place, lists.bits))
    return at


@inlined
def capture(source, made, missing, lo, hi, k, bound, scratch, lists, begin, room):
    """Candidates of the numbers [lo, hi): all >= bound, or the k largest and some; their number.

    Where numbers are ``missing``, the update ``made`` produces them tile by tile.

    They are written from ``begin`` on, less than ``room`` of them (room >= min(hi - lo, k) + SLACK). Where
    the room is full, only the k largest so far stay, of equal ones the first, and the bound becomes what a
    later number must reach to displace one of them: ties and hostile data cost no second reading.
    """
    count, low = np.int64(0), bound
    bits, pieces = lists.bits, scratch.pieces
    step = np.int64(1) << (50 if top(bits) > 0x7FFFFFFF else 20)
    for start in range(lo, hi, STRETCH):
        if count > room - SLACK:
            pieces.begins[0], pieces.sizes[0] = begin, count
            t, ties = threshold(bits, pieces, k, low, step)
            count = emit(lists, begin, count, t, ties, lists, begin) - begin
            if t == top(bits):
                break
            # Of later numbers that equal the k-th none is wanted, so they need not be found.
            bound, low = t + 1, t if ties > 0 else t + 1
        size = min(STRETCH, hi - start)
        if missing:
            produce(made, start, size, bits)
        end = scan(source, start, size, start, bound, lists, begin + count, STRETCH)
        count = end - begin
    return count
