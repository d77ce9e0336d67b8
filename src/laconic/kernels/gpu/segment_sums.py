"""Canonical sums of all segments of a group, in the order that ``laconic.kernels.reference.sums`` fixes.

As ``sums``, of segments of unlike lengths: one launch for their blocks, and one for each factor of 1024
blocks of the longest.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._tables import integers, starts_of
from laconic.kernels.gpu.segments import number_at
from laconic.kernels.gpu.sums import FAN, fold_lanes, fold_neighbours
from laconic.kernels.reference.sums import LANES, ROWS

_TOGETHER = 4
_SQUARES, _MEANS = 0, 1


def segment_sums(x, memory, numels, what):
    """The canonical sum of each segment's squares, or of ``fl(|x_i| / d)`` for "means": float64 (S,)."""
    device = x.array.device
    programs, blocks, folds = _plan(np.ascontiguousarray(numels, np.int64).tobytes())
    sums = torch.empty(blocks, dtype=torch.float64, device=device)
    other = x if memory is None else memory
    launch(
        _blocks, len(programs), x.array, starts_of(x, device), other.array, starts_of(other, device),
        integers(programs, device), integers(numels, device), sums,
        WHAT=_MEANS if what == "means" else _SQUARES, DIFFERENCE=memory is not None,
        TOGETHER=_TOGETHER, ROWS=ROWS, LANES=LANES,
    )  # fmt: skip
    for table, count in folds:
        folded = torch.empty(count, dtype=torch.float64, device=device)
        launch(_fold, count, sums, integers(table, device), folded, FAN=FAN)
        sums = folded
    return sums


@lru_cache(maxsize=256)
def _plan(data):
    """Programs (P, 4), as :func:`_programs` has them; all blocks; and each fold's table and length."""
    numels = np.frombuffer(data, np.int64)
    counts = -(-numels // (LANES * ROWS))
    ends = np.cumsum(counts)
    programs = np.concatenate(
        [_programs(s, n, end - n) for s, (n, end) in enumerate(zip(counts, ends, strict=True))]
    )
    folds, starts = [], ends - counts
    while True:
        parts = -(-counts // FAN)
        owner = np.repeat(np.arange(len(counts)), parts)
        part = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
        table = np.stack([starts[owner] + part * FAN, np.minimum(counts[owner] - part * FAN, FAN)], axis=1)
        folds.append((table, len(owner)))
        if int(parts.max()) == 1:
            return programs, int(ends[-1]), folds
        starts, counts = np.cumsum(parts) - parts, parts


def _programs(segment, count, start):
    """Of each TOGETHER of a segment's blocks: segment, first block, how many, and where their sums go."""
    first = np.arange(0, count, _TOGETHER)
    return np.stack(
        [np.full_like(first, segment), first, np.minimum(count - first, _TOGETHER), start + first], axis=1
    )


@triton.jit
def _blocks(
    x, x_starts, memory, memory_starts, programs, numels, sums,
    WHAT: tl.constexpr, DIFFERENCE: tl.constexpr,
    TOGETHER: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The sums of up to TOGETHER blocks of a segment; no other program writes them."""
    field = programs + 4 * tl.program_id(0).to(tl.int64)
    segment, first = tl.load(field), tl.load(field + 1)
    count, at = tl.load(field + 2), tl.load(field + 3)
    numel = tl.load(numels + segment)
    block = tl.arange(0, TOGETHER)
    start = ((first + block) * (ROWS * LANES))[:, None] + tl.arange(0, LANES)[None, :]
    lanes = tl.zeros((TOGETHER, LANES), dtype=tl.float64)
    for line in range(ROWS):
        place = start + line * LANES
        mask = place < numel
        number = number_at(x, x_starts, memory, memory_starts, segment, place, mask, DIFFERENCE).to(
            tl.float64
        )
        if WHAT == 0:  # noqa: SIM108 (Triton decides it when it compiles)
            number = number * number
        else:
            number = tl.abs(number) / numel.to(tl.float64)
        lanes = lanes + number
    tl.store(sums + at + block, fold_lanes(lanes, TOGETHER), mask=block < count)


@triton.jit
def _fold(sums, table, folded, FAN: tl.constexpr):
    """Up to FAN neighbours become one, pair by pair; no other program writes it."""
    program = tl.program_id(0).to(tl.int64)
    start, count = tl.load(table + 2 * program), tl.load(table + 2 * program + 1)
    block = tl.arange(0, FAN)
    total = tl.load(sums + start + block, mask=block < count, other=0.0)
    tl.store(folded + program, fold_neighbours(total, FAN))
