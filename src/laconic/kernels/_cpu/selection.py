"""Top-k of all segments of a vector by the loops of ``topk``, on several threads.

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

from laconic.kernels._cpu import _largest, candidates, topk
from laconic.kernels._cpu._simd import LANES
from laconic.kernels._cpu.threads import in_threads
from laconic.kernels._cuts import Cuts

_WORTH = 1 << 22
"""Numbers a thread: below, waking it beside PyTorch's own threads takes longer than it helps."""
_CUT = 1 << 18
"""Segments from here on are cut between threads."""
_PLANS = 8
_KEEP = 1 << 22
"""Places of lists that are kept: 50 MB. Longer ones take less time to get than to fill."""

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

    def guess(self, top, fine):
        """A bound; 0 where there is none."""
        return topk.guessed(self._last, self._drift, self._spread, self._sure, fine, top)

    def learn(self, t, fine):
        """Look at the k-th magnitude of a round."""
        if self._last < 0:
            self._spread, self._sure = 2 * fine, True
        else:
            error = t - self._last - self._drift
            found = topk.learned(self._drift, self._spread, self._sure, error, fine)
            self._drift, self._spread, self._sure = found
        self._last = t


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
        rooms = [min(topk_room(most), block) + candidates.SLACK for block in longest]
        return cls(rows, rooms, [np.full(mine.shape[0], -1) for mine in rows], shared)


def top_k(x, memory, cuts, salt, threads, positions, values, moved):
    """Fill positions and values (both (cuts.total,)) from x and memory, seen as ``topk`` wants them.

    ``moved`` is what ``topk.move`` wants: sums, before, numbers, away; the first may be empty.
    """
    plan = _plan(cuts, max(1, min(threads, cuts.numel // _WORTH)))
    width = 64 if x.itemsize == 8 else 32
    mask = (1 << (width - 1)) - 1
    shift = 16 if values.itemsize == 2 else 0
    top = mask >> shift << shift
    given = (salt & 0xFFFFFFFFFFFF, mask, top, shift)
    long = [_LongSegment(i, x, memory, cuts, part, given) for i, part in enumerate(plan.shared)]

    def work(thread):
        for segment in long:
            segment.capture(thread)
        rows, hints = plan.rows[thread], plan.hints[thread]
        if rows.shape[0]:
            scratch = _scratch("own", x, plan.rooms[thread])
            topk.select_rows(rows, hints, x, memory, *given, *scratch, positions, values, *moved)

    in_threads(work, len(plan.rows))
    for segment in long:
        segment.finish(positions, values, moved)


class _LongSegment:
    """The k largest of a segment that several threads read."""

    def __init__(self, name, x, memory, cuts, part, given) -> None:
        self._x, self._memory, self._part, self._given = x, memory, part, given
        self._start = int(cuts.starts[part.segment])
        self._end = self._start + int(cuts.lengths[part.segment])
        self._k = int(cuts.counts[part.segment])
        self._at = int(cuts.offsets[part.segment])
        lengths = (hi - lo for lo, hi in zip(part.lo, part.hi, strict=True))
        self._rooms = [min(length, topk_room(self._k)) + candidates.SLACK for length in lengths]
        self._begins = np.concatenate(([0], np.cumsum(self._rooms)[:-1])).astype(np.int64)
        self._sizes = np.zeros(len(part.lo), np.int64)
        room = sum(self._rooms)
        self._scratch = _scratch(name, x, room)
        self._fine = topk.fineness(given[1])
        self._bounds = self._ever_lower()
        self._bound = next(self._bounds)

    def _ever_lower(self):
        guess = self._part.seen.guess(self._given[2], self._fine)
        if guess > 0:
            yield guess
        yield self._sampled(0)
        yield self._sampled(1)
        yield 0

    def _sampled(self, attempt):
        salt, _, top, _ = self._given
        _, bits, one, size = _scratch("own", self._x, 0)
        return candidates.sampled_bound(
            self._x, self._memory, self._start, self._end, self._k, salt + attempt, top, bits, one, size
        )

    def capture(self, thread):
        """Candidates of the piece of one thread."""
        if thread in self._part.threads:
            self._capture(self._part.threads.index(thread))

    def _capture(self, piece):
        _, mask, top, _ = self._given
        positions, bits, _, _ = self._scratch
        one, size = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._sizes[piece] = candidates.capture(
            self._x, self._memory, self._part.lo[piece], self._part.hi[piece], self._start, self._k,
            self._bound, mask, top, positions, bits, self._begins[piece], self._rooms[piece], one, size,
        )  # fmt: skip

    def finish(self, out_positions, out_values, moved):
        """Take the k largest of all candidates; where the bound was too high, collect them again."""
        sums, before, numbers, away = moved
        while self._sizes.sum() < self._k:
            self._bound = next(self._bounds)
            in_threads(self._capture, len(self._rooms))
        _, mask, top, shift = self._given
        positions, bits, _, _ = self._scratch
        t, ties = -1, 0
        if self._sizes.sum() > self._k:
            t, ties = _largest.threshold(
                bits, self._begins, self._sizes, self._k, self._bound, top, 2 * self._fine
            )
            self._part.seen.learn(t, self._fine)
        ats, shares = np.zeros_like(self._sizes), np.zeros_like(self._sizes)
        _largest.divide(bits, self._begins, self._sizes, t, ties, top, self._at, ats, shares)

        def emit(piece):
            end = _largest.emit(
                positions, bits, self._begins[piece], self._sizes[piece], t, shares[piece],
                mask, top, shift, out_positions, out_values, ats[piece],
            )  # fmt: skip
            if sums.size:
                topk.move(sums, before, numbers, out_positions, ats[piece], end, self._start, away)

        in_threads(emit, len(self._rooms))


def topk_room(k):
    """Places for candidates of which k are kept, as ``topk.select_rows`` has them."""
    return 2 * k + min(2 * k, 1 << 20) + 4096


def _scratch(name, x, room):
    """Lists for candidates, kept for this thread's next call unless they are huge."""
    kind = np.int64 if x.itemsize == 8 else np.int32
    held = _kept.__dict__.setdefault("held", {})
    found = held.get((name, kind))
    if found is None or found[0].size < room:
        one, size = np.zeros(1, np.int64), np.zeros(1, np.int64)
        found = (
            np.empty(room, np.int64),
            np.empty(max(room, candidates.MOST_SAMPLES) + LANES, kind),
            one,
            size,
        )
        if room <= _KEEP:
            held[name, kind] = found
    return found


def _plan(cuts: Cuts, threads: int) -> _Plan:
    plan = cuts.plans.get(threads)
    if plan is None:
        if len(cuts.plans) >= _PLANS:
            cuts.plans.clear()
        plan = cuts.plans[threads] = _planned(cuts, threads)
    return plan


def _planned(cuts: Cuts, threads: int) -> _Plan:
    starts, offsets = cuts.starts, cuts.offsets[:-1]
    columns = (starts, cuts.lengths, starts, cuts.blocks, cuts.counts, cuts.lasts, offsets)
    rows = np.ascontiguousarray(np.stack(columns, axis=1))
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
                part.lo.append(int(cuts.starts[segment]) + lo)
                part.hi.append(int(cuts.starts[segment]) + hi)
                part.threads.append(thread)
                continue
            row = rows[segment].copy()
            row[0] += lo
            row[1] = hi - lo
            row[6] += lo // row[3] * row[4]
            mine.append(row)
        shares.append(np.stack(mine) if mine else rows[:0])
    return _Plan.of(shares, list(shared.values()), cuts.most)


def _snapped(cuts: Cuts, ends: np.ndarray, border: int) -> int:
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
