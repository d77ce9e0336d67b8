"""Top-k of blocks that one program holds whole.

It finds each block's k-th magnitude bit by bit, from the highest, by counting; and it alone writes the
places of its own blocks.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import triton
import triton.language as tl

from laconic.kernels.gpu._launch import MAGNITUDE_BITS, launch
from laconic.kernels.gpu._numbers import magnitude, read
from laconic.kernels.gpu._plan import SHORT_FIELDS


def top_k_short(x, memory, group, positions, values, difference):
    """Writes what each block of a group keeps to its place in ``positions`` and ``values``."""
    launch(
        _top_k, len(group.programs), x, memory, group.table, group.programs, positions, values,
        DIFFERENCE=difference, BITS=MAGNITUDE_BITS[values.dtype], TOGETHER=group.together,
        LENGTH=group.length, FIELDS=SHORT_FIELDS,
    )  # fmt: skip


@triton.jit
def _top_k(
    x, memory, segments, programs, positions, values,
    DIFFERENCE: tl.constexpr, BITS: tl.constexpr, TOGETHER: tl.constexpr, LENGTH: tl.constexpr,
    FIELDS: tl.constexpr,
):  # fmt: skip
    """The largest of each of TOGETHER blocks of a segment."""
    program = programs + 2 * tl.program_id(0).to(tl.int64)
    field = segments + tl.load(program).to(tl.int64) * FIELDS
    start, size, block = tl.load(field), tl.load(field + 1), tl.load(field + 2)
    count, last, results = tl.load(field + 3), tl.load(field + 4), tl.load(field + 5)
    number = tl.load(program + 1).to(tl.int64) + tl.arange(0, TOGETHER)
    length = tl.minimum(tl.maximum(size - number * block, 0), block)
    wanted = tl.where(length == block, count, last)[:, None]
    lane = tl.arange(0, LENGTH)[None, :]
    mask = lane < length[:, None]
    position = (number * block)[:, None] + lane
    value = read(x + start, memory + start, position, mask, DIFFERENCE)
    key = tl.where(mask, magnitude(value), -1)
    kth = tl.zeros((TOGETHER, 1), dtype=key.dtype)
    bit = tl.full((TOGETHER, 1), 1 << (BITS - 1), dtype=key.dtype)
    for _ in range(BITS):
        trial = kth | bit
        reach = tl.sum((key >= trial).to(tl.int32), axis=1, keep_dims=True)
        kth = tl.where(reach >= wanted, trial, kth)
        bit = bit >> 1
    above = (key > kth).to(tl.int32)
    tied = (key == kth).to(tl.int32)
    room = wanted - tl.sum(above, axis=1, keep_dims=True)
    stays = (above > 0) | ((tied > 0) & (tl.cumsum(tied, axis=1) <= room))
    rank = tl.cumsum(stays.to(tl.int32), axis=1) - 1
    at = (results + number * count)[:, None] + rank
    tl.store(positions + at, position, mask=stays)
    tl.store(values + at, value, mask=stays)
