"""Exact Top-k by magnitude on a CPU: the algorithm, and the loop over segments and blocks.

**Numbers and magnitudes.** Numbers are compared as bit patterns, int32 for float32, int64 for float64.
Without the sign such a pattern is a non-negative integer, in the order of magnitudes, with infinity and
then NaN above all finite numbers. bfloat16 and float16 are the upper half of 32 bits.

**Reading** (``topk_tiles``). What is selected among (x, x - memory, memory + x) is read, or computed, 64
numbers at a time in registers, by one small function. Where numbers are looked at more than once, they are
first written into a tile, which the first cache holds.

**One pass with a bound.** To find the k largest of n numbers:

1. A *bound* below the k-th magnitude is chosen (``topk_bounds``). Blocks, and segments in later rounds,
   take a guess from the k-th magnitudes before; a first round takes an order statistic of a sample.
2. *Candidates*, the numbers that reach the bound, are written down with their positions, 64 compared at a
   time (``topk_candidates``). When the room for them is full, all but their own k largest are thrown away,
   and the bound rises.
3. Among the candidates, a *threshold* t is found by counting how many reach this magnitude and that
   (``topk_lists``). The k largest are those > t and the first few that equal it, and are written in order
   of their positions. Up to 32 candidates are ranked one by one instead.

**Where the bound misled.** A *short* vector (at most ``SHORT`` numbers: a block, or a small segment) is put
into a tile, and a better bound is found by counting there. A *long* one is read again, with a bound from a
fresh sample, then with the bound 1, which all numbers but zeros reach; what is then still missing are zeros,
the first of them. What comes out depends on no bound, guess or sample.

**The memory's update.** What is kept of a segment or block is added to its memory, or taken away, straight
after it was selected, and what stood there before is written down.

**Threads** (``selection``). Segments and blocks are shared out; a long segment is cut, each thread collects
the candidates of its piece, and the threshold is found in all lists together.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from typing import NamedTuple

import numpy as np

from laconic.kernels.cpu._jit import inlined, inner_loop, loop
from laconic.kernels.cpu._simd import (
    always_inlined,
    bits_of,
    fence,
    float_of,
    floats_at,
    never_inlined,
    top,
)
from laconic.kernels.cpu.topk_bounds import fineness, guessed, learned, narrowed, sampled_bound
from laconic.kernels.cpu.topk_candidates import SLACK, STRETCH, capture, room_for, scan
from laconic.kernels.cpu.topk_lists import (
    FEW,
    Lists,
    Pieces,
    emit,
    emit_tile,
    ranked,
    threshold,
)
from laconic.kernels.cpu.topk_tiles import ADAMW, NARROW, SUM, Operands, Source, X, address_of, fill
from laconic.kernels.cpu.topk_updates import produce, update_of

U = np.uint64
ZERO, ONE = np.int64(0), np.int64(1)
_ATTEMPTS = 2
_PIECE = np.int64(1 << 9)
SHORT = 1 << 13
"""Numbers up to which a vector is held in one tile, and a wrong bound is mended by counting."""


class Scratch(NamedTuple):
    """Room of one thread: a tile of ``SHORT`` numbers, candidates, and the one list that those are."""

    tile: np.ndarray
    lists: Lists
    pieces: Pieces


class Kept(NamedTuple):
    """What is written: positions and patterns, and the patterns that stood in the memory before."""

    lists: Lists
    before: np.ndarray


@inner_loop
def scratch_of(tile, positions, bits, begins, sizes):
    """``Scratch`` of its arrays."""
    return Scratch(tile, Lists(positions, bits), Pieces(begins, sizes))


@inner_loop
def kept_of(positions, bits, before):
    """``Kept`` of its arrays."""
    return Kept(Lists(positions, bits), before)


class Row(NamedTuple):
    """Columns of the table of what a thread does alone: blocks of a segment, or all of it.

    Args:
        segment: its number.
        start, length: which numbers of the segment.
        block: numbers a block.
        count: kept of each whole block.
        last: kept of a shorter last block.
        at: where the first kept number is written.
    """

    segment: int
    start: int
    length: int
    block: int
    count: int
    last: int
    at: int


@loop
def select_rows(rows, hints, operands, salt, scratch, kept, move):
    """The k largest of each block of each row; and the memory's update.

    Args:
        rows: int64 (rows, 7), columns as ``Row``.
        hints: int64 (rows,): k-th magnitudes of the last round, < 0 where there was none, and of this round
            when it ends. All may have moved by the same factor since, so the k-th magnitude is looked for at
            its hint plus the ``drift`` of those before it, less some times their ``spread``.
        operands, scratch, kept: tuples of the arrays that ``Operands``, ``scratch_of`` and ``kept_of`` want.
        salt: where samples are drawn.
        move: 1 to add what is kept to the memory, -1 to take it away from the memory or out, 0 for neither.
    """
    # numba's files on disk name the types of arguments: tuples, for they outlive the classes of today.
    operands, scratch, kept = Operands(*operands), scratch_of(*scratch), kept_of(*kept)
    fine, largest = fineness(top(scratch.tile)), top(scratch.tile)
    drift, spread, sure = ZERO, fine, rows.size < 0  # a plain False is another type
    for i in range(rows.shape[0]):
        row = Row(rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3], rows[i, 4], rows[i, 5], rows[i, 6])
        source, made = source_of(operands, row.segment), update_of(operands.settings, operands, row.segment)
        at = row.at
        t = hint = hints[i] if hints[i] <= largest else np.int64(-1)
        late = hint + drift
        for lo in range(row.start, row.start + row.length, row.block):
            n = min(row.block, row.start + row.length - lo)
            k = row.count if n == row.block else row.last
            if n <= SHORT or k == n:
                produce(made, lo, n, scratch.tile)
            if k == n:
                _keep_all(source, lo, n, scratch.tile, kept.lists, at)
            elif n <= SHORT:
                # A wrong guess costs little, so the least spread is no reason for a margin.
                guess = hint + drift - 3 * (spread - (fine >> 2)) if hint >= 0 else ONE
                guess = min(max(guess, ONE), largest)
                t = _of_short(source, lo, n, k, guess, max(spread, fine), scratch, kept.lists, at)
            else:
                bound = guessed(hint, drift, spread, sure, fine, largest)
                t = _of_long(source, made, lo, n, k, bound, 2 * fine, salt, scratch, kept.lists, at)
            if move:
                update(source, kept, at, at + k, move)
            at += k
            if n < row.block or k == n:
                continue
            if hint < 0:
                hint, drift, spread, sure = t, ZERO, 2 * fine, True
                late = t
                continue
            # Of blocks the one before: a guess that waits for the last one stops the processor.
            error = (late if row.block < row.length else t) - hint - drift
            late = t
            drift, spread, sure = learned(drift, spread, sure, error, fine)
        if hint >= 0:
            hints[i] = t if row.block >= row.length else hint + drift
    fence()


@inlined
def source_of(operands, segment):
    """The operands of one segment, as they are read; of an update, what has been written to out."""
    if operands.what >= ADAMW:
        return Source(X, operands.out[segment], operands.out[segment], operands.out[segment])
    return Source(operands.what, operands.x[segment], operands.memory[segment], operands.out[segment])


@inner_loop
def update(source, kept, start, end, move):
    """Add the kept numbers [start, end) to the memory or take them away; what stood there before."""
    always_inlined()
    address = source.out if source.what % NARROW == SUM else source.memory
    vector = floats_at(address, kept.before)
    for i in range(start, end):
        place = kept.lists.positions[U(i)]
        number = float_of(kept.lists.bits[U(i)])
        before = vector[place]
        kept.before[U(i)] = bits_of(before)
        vector[place] = before + number if move > 0 else before - number


@inlined
def _keep_all(source, lo, n, tile, out, at):
    for start in range(0, n, STRETCH):
        size = min(STRETCH, n - start)
        fill(source, lo + start, size, tile)
        for i in range(size):
            out.positions[at + start + i] = lo + start + i
            out.bits[at + start + i] = tile[i]


@inlined
def _of_short(source, lo, n, k, guess, step, scratch, out, at):
    """The k largest of at most ``SHORT`` numbers from ``lo`` on; the least of them."""
    tile, lists = scratch.tile, scratch.lists
    most, bound = max(2 * k, FEW), guess
    found = scan(source, lo, n, lo, bound, lists, ZERO, most)
    if found < k and bound == ONE:
        _emit_zeros(source, lo, n, k, found, tile, out, at)
        return ZERO
    if found < k or found > most:
        fill(source, lo, n, tile)
        bound, found, above = narrowed(tile, n, k, guess, found, most, step)
        if found > most:
            emit_tile(tile, n, lo, bound, k - above, out, at, at + k)
            return bound
        filled = Source(X, address_of(tile), 0, 0)
        found = scan(filled, ZERO, n, lo, bound, lists, ZERO, most)
    if found <= FEW:
        return ranked(lists, found, k, out, at)
    return _of_list(scratch, found, k, bound, step, out, at)


@inner_loop
def _emit_zeros(source, lo, n, k, found, tile, out, at):
    """The k largest of n numbers of which only ``found`` < k are not zero."""
    never_inlined()
    end, zeros = at + k, k - found
    for start in range(lo, lo + n, _PIECE):
        if at == end:
            break
        size = min(_PIECE, lo + n - start)
        fill(source, start, size, tile)
        at, zeros = emit_tile(tile, size, start, ZERO, zeros, out, at, end)


@inner_loop
def _of_list(scratch, found, k, bound, step, out, at):
    """The k largest of many candidates, written in order; the least of them."""
    never_inlined()
    lists, pieces = scratch.lists, scratch.pieces
    pieces.begins[0], pieces.sizes[0] = 0, found
    t, ties = threshold(lists.bits, pieces, k, bound, step)
    emit(lists, ZERO, found, t, ties, out, at)
    return t


@inlined
def _of_long(source, made, lo, n, k, bound, step, salt, scratch, out, at):
    """As ``_of_short``, of more numbers; a bound of 0 is none."""
    attempt = ZERO
    missing = bound > 0
    if not missing:
        # Samples come from everywhere.
        produce(made, lo, n, scratch.tile)
    room = room_for(k, n) + SLACK
    while True:
        if bound == 0 and attempt < _ATTEMPTS:
            bound = sampled_bound(source, lo, n, k, salt + attempt, scratch)
            attempt += 1
        bound = max(bound, ONE)
        found = capture(source, made, missing, lo, lo + n, k, bound, scratch, scratch.lists, ZERO, room)
        missing = False
        if found >= k:
            return _of_list(scratch, found, k, bound, step, out, at)
        if bound == ONE:
            _emit_zeros(source, lo, n, k, found, scratch.tile, out, at)
            return ZERO
        bound = ZERO
