"""Top-k of all segments by the loops of ``topk``, on several threads.

The threads share the coordinates evenly. A border moves to the end of a short segment or of a block; a long
segment is cut: each thread then collects candidates of its piece, and the k largest are taken of all lists
together. So what comes out is the same for any number of threads.
"""
# mypy: ignore-errors
# The loops have no types.

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.cpu import topk, topk_bounds, topk_shared
from laconic.kernels.cpu._simd import LANES
from laconic.kernels.cpu.threads import in_threads
from laconic.kernels.cpu.topk import SHORT
from laconic.kernels.cpu.topk_candidates import SLACK, room_for
from laconic.kernels.cpu.topk_tiles import ADAMW

_WORTH = 1 << 22
"""Numbers a thread: below, waking it beside PyTorch's own threads takes longer than it helps."""
_CUT = 1 << 18
"""Segments from here on are cut between threads."""
STREAMED = 1 << 20
"""Numbers from which on moments are written past the caches, which do not hold them."""
_PLANS = 8
_KEEP = 1 << 22
"""Places of lists that are kept: 50 MB. Longer ones take less time to get than to fill."""

_with_updates = False
_kept = threading.local()


@contextmanager
def eagerly():
    """Inside, threads share shorter vectors too: to compile what they need, and to test it."""
    global _WORTH  # noqa: PLW0603
    before, _WORTH = _WORTH, 1 << 17
    try:
        yield
    finally:
        _WORTH = before


def compile_updates():
    """From now on use loops that compute updates too, for other operands as well: so one form is compiled."""
    global _with_updates  # noqa: PLW0603
    _with_updates = True


def is_shared(numbers):
    """Whether several threads share so many numbers."""
    return numbers >= 2 * _WORTH


@dataclass(frozen=True)
class _Shared:
    """One long segment in pieces."""

    segment: int
    lo: list[int]
    hi: list[int]
    threads: list[int]
    seen: "_Seen"


class _Seen:
    """What rounds so far say of where the k-th magnitude will be: as ``hints`` and what goes with them."""

    def __init__(self) -> None:
        self._last, self._drift, self._spread, self._sure = -1, 0, 0, False

    def guess(self, largest):
        """A bound; 0 where there is none."""
        fine = _fineness(largest)
        return int(
            topk_bounds.guessed.py_func(self._last, self._drift, self._spread, self._sure, fine, largest)
        )

    def learn(self, t, largest):
        """Look at the k-th magnitude of a round."""
        fine = _fineness(largest)
        if self._last < 0:
            self._spread, self._sure = 2 * fine, True
        else:
            error = t - self._last - self._drift
            found = topk_bounds.learned.py_func(self._drift, self._spread, self._sure, error, fine)
            self._drift, self._spread, self._sure = found
        self._last = t


def _fineness(largest):
    return int(topk_bounds.fineness.py_func(largest))


@dataclass(frozen=True)
class _Plan:
    """What each thread does alone, and what all share."""

    rows: list[np.ndarray]
    rooms: list[int]
    hints: list[np.ndarray]
    """k-th magnitudes of the last round, where the next search begins. They change no result."""
    shared: list[_Shared]

    @classmethod
    def of(cls, rows, shared, most) -> "_Plan":
        longest = (int(mine[:, 3].max(initial=0)) for mine in rows)
        rooms = [room_for.py_func(most, block) + SLACK for block in longest]
        return cls(rows, rooms, [np.full(mine.shape[0], -1) for mine in rows], shared)


def select(operands, cuts, salt, threads, positions, values, before, move):
    """As ``laconic.kernels.selection.select_segments``.

    Args:
        operands: as ``topk_tiles.Operands``, without the last.
        cuts, salt, threads: the cuts, where samples are drawn, and by how many threads at most.
        positions: int64 (cuts.total,), filled.
        values: float32 or float64 (cuts.total,), filled; of x alone in 16 bits, these are the upper half.
        before: as values, filled where something moves; else empty.
        move: as for ``topk.select_rows``.
    """
    plan = _plan(cuts, max(1, min(threads, cuts.numel // _WORTH)))
    makes = operands[0] >= ADAMW
    if makes:
        compile_updates()
    operands = (*operands, int(cuts.numel >= STREAMED)) if _with_updates else (*operands[:4], *[None] * 4)
    patterns = np.int64 if values.itemsize == 8 else np.int32
    kept = positions, values.view(patterns), before.view(patterns)  # as topk.kept_of
    given = operands, patterns, salt & 0xFFFFFFFFFFFF, move
    if makes:
        _make(plan, operands, kept[1])
    long = [_LongSegment(i, cuts, part, *given) for i, part in enumerate(plan.shared)]

    def work(thread):
        for segment in long:
            segment.collect(thread)
        rows, hints = plan.rows[thread], plan.hints[thread]
        if rows.shape[0]:
            scratch = _scratch("own", patterns, plan.rooms[thread])
            topk.select_rows(rows, hints, operands, given[2], scratch, kept, move)

    in_threads(work, len(plan.rows))
    for segment in long:
        segment.finish(kept)


def _make(plan, operands, bits):
    """Produce the numbers of segments that threads share; samples of them come from everywhere."""

    def work(thread):
        for part in plan.shared:
            if thread in part.threads:
                piece = part.threads.index(thread)
                topk_shared.make(operands, part.segment, part.lo[piece], part.hi[piece], bits)

    if plan.shared:
        in_threads(work, len(plan.rows))


class _LongSegment:
    """The k largest of a segment that several threads read."""

    def __init__(self, name, cuts, part, operands, patterns, salt, move) -> None:
        self._part, self._given = part, (operands, part.segment)
        self._patterns, self._salt, self._move = patterns, salt, move
        self._n = int(cuts.lengths[part.segment])
        self._k = int(cuts.counts[part.segment])
        self._at = int(cuts.offsets[part.segment])
        self._largest = int(np.iinfo(patterns).max)
        lengths = (hi - lo for lo, hi in zip(part.lo, part.hi, strict=True))
        self._rooms = [room_for.py_func(self._k, length) + SLACK for length in lengths]
        begins = np.concatenate(([0], np.cumsum(self._rooms)[:-1])).astype(np.int64)
        self._pieces = begins, np.zeros(len(part.lo), np.int64)
        self._lists = _scratch(name, patterns, sum(self._rooms))[1:3]
        self._bounds = self._ever_lower()
        self._bound = next(self._bounds)

    def _ever_lower(self):
        guess = self._part.seen.guess(self._largest)
        if guess > 0:
            yield guess
        for attempt in range(2):
            scratch = _scratch("own", self._patterns, 0)
            yield topk_shared.sample(*self._given, self._n, self._k, self._salt + attempt, scratch)
        yield 0

    def collect(self, thread):
        """Candidates of the piece of one thread."""
        if thread in self._part.threads:
            self._collect(self._part.threads.index(thread))

    def _collect(self, piece):
        lo, hi, room = self._part.lo[piece], self._part.hi[piece], self._rooms[piece]
        self._pieces[1][piece] = topk_shared.collect(
            *self._given, lo, hi, self._k, self._bound, _scratch("own", self._patterns, 0),
            self._lists, self._pieces[0][piece], room,
        )  # fmt: skip

    def finish(self, kept):
        """Take the k largest of all candidates; where the bound was too high, collect them again."""
        begins, sizes = self._pieces
        while sizes.sum() < self._k:
            self._bound = next(self._bounds)
            in_threads(self._collect, len(self._rooms))
        low, step = (self._bound, 2 * _fineness(self._largest)) if sizes.sum() > self._k else (-1, 0)
        ats, shares = np.zeros_like(sizes), np.zeros_like(sizes)
        t = topk_shared.part(self._lists[1], self._pieces, self._k, low, step, self._at, ats, shares)
        if step:
            self._part.seen.learn(t, self._largest)

        def write(piece):
            topk_shared.write(
                *self._given, self._lists, begins[piece], sizes[piece], t, shares[piece], kept, ats[piece],
                self._move,
            )  # fmt: skip

        in_threads(write, len(self._rooms))


def _scratch(name, patterns, room):
    """Room for candidates, kept for this thread's next call unless it is huge."""
    held = _kept.__dict__.setdefault("held", {})
    found = held.get((name, patterns))
    if found is None or found[1].size < room:
        found = (
            np.empty(SHORT + LANES, patterns),
            np.empty(room, np.int64),
            np.empty(max(room, topk_bounds.MOST_SAMPLES) + LANES, patterns),
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
        )  # as topk.scratch_of
        if room <= _KEEP:
            held[name, patterns] = found
    return found


def _plan(cuts: SelectionTable, threads: int) -> _Plan:
    plan = cuts.plans.get(threads)
    if plan is None:
        if len(cuts.plans) >= _PLANS:
            cuts.plans.clear()
        plan = cuts.plans[threads] = _planned(cuts, threads)
    return plan


def _planned(cuts: SelectionTable, threads: int) -> _Plan:
    numbers, zeros = np.arange(cuts.lengths.size), np.zeros_like(cuts.lengths)
    columns = (numbers, zeros, cuts.lengths, cuts.blocks, cuts.counts, cuts.lasts, cuts.offsets[:-1])
    rows = np.ascontiguousarray(np.stack(columns, axis=1))  # as topk.Row
    if threads == 1:
        return _Plan.of([rows], [], cuts.most)
    ends = cuts.lengths.cumsum()
    borders = [_snapped(cuts, ends, cuts.numel * thread // threads) for thread in range(threads + 1)]
    shares, shared = [], {}
    for thread in range(threads):
        mine = []
        first = int(np.searchsorted(ends, borders[thread], "right"))
        last = int(np.searchsorted(ends, borders[thread + 1], "left"))
        for segment in range(first, min(last + 1, ends.size)):
            before = int(ends[segment] - cuts.lengths[segment])
            lo = max(borders[thread] - before, 0)
            hi = min(borders[thread + 1] - before, int(cuts.lengths[segment]))
            if lo >= hi:
                continue
            if hi - lo < cuts.lengths[segment] and cuts.blocks[segment] == cuts.lengths[segment]:
                part = shared.setdefault(segment, _Shared(segment, [], [], [], _Seen()))
                part.lo.append(lo)
                part.hi.append(hi)
                part.threads.append(thread)
                continue
            row = rows[segment].copy()
            row[1] = lo
            row[2] = hi - lo
            row[6] += lo // row[3] * row[4]
            mine.append(row)
        shares.append(np.stack(mine) if mine else rows[:0])
    return _Plan.of(shares, list(shared.values()), cuts.most)


def _snapped(cuts: SelectionTable, ends: np.ndarray, border: int) -> int:
    """A border between threads, moved to where its segment may be cut."""
    segment = int(np.searchsorted(ends, border, "right"))
    if segment == ends.size:
        return border
    length, block = int(cuts.lengths[segment]), int(cuts.blocks[segment])
    before = int(ends[segment]) - length
    inside = border - before
    if block < length:
        inside = inside // block * block
    elif length >= _CUT:
        inside = inside // 64 * 64
    else:
        inside = 0 if inside < length - inside else length
    return before + inside
