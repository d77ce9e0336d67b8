"""Top-k of long stretches, first half: the candidates, and the exact k-th magnitude among them.

``selection`` says how the kernels work together.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import triton
import triton.language as tl

from laconic.kernels.gpu._numbers import magnitude, read


@triton.jit
def bound(
    x, memory, segments, bounds,
    DIFFERENCE: tl.constexpr, BITS: tl.constexpr, SAMPLES: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """The magnitude at the rank that the plan names, among one number of each stretch of the segment."""
    segment = tl.program_id(0)
    field = segments + segment.to(tl.int64) * FIELDS
    start, length, rank = tl.load(field), tl.load(field + 1), tl.load(field + 3)
    i = tl.arange(0, SAMPLES)
    mixed = (i.to(tl.uint32) + 1) * 0x9E3779B1
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA6B
    stride = tl.maximum(length // SAMPLES, 1)
    spread = i.to(tl.int64) * length // SAMPLES + (mixed ^ (mixed >> 13)).to(tl.int64) % stride
    inside = tl.where(length > SAMPLES, spread, i.to(tl.int64))
    mask = inside < length
    key = tl.where(mask, magnitude(read(x + start, memory + start, inside, mask, DIFFERENCE)), -1)
    bound = tl.zeros((), dtype=key.dtype)
    bit = tl.full((), 1 << (BITS - 1), dtype=key.dtype)
    for _ in range(BITS):
        trial = bound | bit
        reach = tl.sum((key >= trial).to(tl.int32), axis=0)
        bound = tl.where(reach >= rank, trial, bound)
        bit = bit >> 1
    tl.store(bounds + segment, bound.to(tl.int64))


@triton.jit
def collect(
    x, memory, segments, tiles, cursors, values, bounds, places, chunks,
    DIFFERENCE: tl.constexpr, TILE: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """The numbers of one tile that reach the bound, where the segment's cursor says."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = segments + segment.to(tl.int64) * FIELDS
    start, length = tl.load(field), tl.load(field + 1)
    region, room = tl.load(field + 4), tl.load(field + 5)
    place = tl.arange(0, TILE)
    first = number.to(tl.int64) * TILE
    mask = place < length - first
    value = read(x + start + first, memory + start + first, place, mask, DIFFERENCE)
    key = magnitude(value)
    reaches = mask & (key >= tl.load(bounds + segment).to(key.dtype))
    rank = tl.cumsum(reaches.to(tl.int32), axis=0) - 1
    count = tl.sum(reaches.to(tl.int32), axis=0).to(tl.int64)
    at = tl.atomic_add(cursors + segment, count, sem="relaxed")
    fits = reaches & (at + count <= room)
    tl.store(values + region + at + rank, value, mask=fits)
    tl.store(places + region + at + rank, place, mask=fits)
    tl.store(chunks + 2 * tile, region + at)
    tl.store(chunks + 2 * tile + 1, count)


@triton.jit(do_not_specialize=["low", "high"])
def histogram(
    x, memory, segments, tiles, cursors, values, threshold, bins, low, high,
    BINS: tl.constexpr, DIFFERENCE: tl.constexpr, TILE: tl.constexpr, PIECE: tl.constexpr,
    FIELDS: tl.constexpr,
):  # fmt: skip
    """Counts of bits low to high, among numbers whose higher bits are those of the k-th magnitude."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = segments + segment.to(tl.int64) * FIELDS
    start, region = tl.load(field), tl.load(field + 4)
    total = tl.load(cursors + segment)
    misled = (total < tl.load(field + 2)) | (total > tl.load(field + 5))
    # Candidates are never more than the numbers, so there are tiles enough for them.
    amount = tl.where(misled, tl.load(field + 1), total)
    first = number.to(tl.int64) * TILE
    end = tl.minimum(first + TILE, amount)
    if first < end:
        prefix = tl.load(threshold + 2 * segment) >> high
        counted = tl.zeros((BINS,), dtype=tl.int32)
        for begin in range(first, end, PIECE):
            i = tl.arange(0, PIECE)
            mask = i < end - begin
            if misled:
                value = read(x + start + begin, memory + start + begin, i, mask, DIFFERENCE)
            else:
                value = tl.load(values + region + begin + i, mask=mask, other=0.0)
            key = magnitude(value).to(tl.int64)
            alike = mask & ((key >> high) == prefix)
            digit = (key >> low).to(tl.int32) & ((1 << (high - low)) - 1)
            counted += tl.histogram(digit, BINS, mask=alike)
        bin_ = bins + segment.to(tl.int64) * BINS + tl.arange(0, BINS)
        tl.atomic_add(bin_, counted, mask=counted > 0, sem="relaxed")


@triton.jit(do_not_specialize=["low", "first"])
def narrow(segments, threshold, bins, low, first, BINS: tl.constexpr, FIELDS: tl.constexpr):
    """Adds a digit to the k-th magnitude, and leaves how many of those alike so far are still wanted."""
    segment = tl.program_id(0).to(tl.int64)
    digit = tl.arange(0, BINS)
    mine = bins + segment * BINS + digit
    counted = tl.load(mine)
    tl.store(mine, tl.zeros_like(counted))
    prefix, wanted = tl.load(threshold + 2 * segment), tl.load(threshold + 2 * segment + 1)
    wanted = tl.where(first != 0, tl.load(segments + segment * FIELDS + 2), wanted)
    above = (tl.sum(counted, axis=0) - tl.cumsum(counted, axis=0)).to(tl.int64)
    here = (above < wanted) & (above + counted >= wanted)
    found = tl.sum(tl.where(here, digit, 0), axis=0).to(tl.int64)
    over = tl.sum(tl.where(here, above, 0), axis=0)
    tl.store(threshold + 2 * segment, prefix | (found << low))
    tl.store(threshold + 2 * segment + 1, wanted - over)
