"""Top-k of long stretches, second half: compaction of the kept numbers, in order.

``selection`` says how the kernels work together.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import triton
import triton.language as tl

from laconic.kernels.gpu._numbers import magnitude, read


@triton.jit
def _piece(
    x, memory, values, places, start, first, chunk, misled, begin, amount,
    DIFFERENCE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Some of a tile's numbers, or of its candidates, in order: places in the tile, numbers, which are."""
    i = (begin + tl.arange(0, CHUNK)).to(tl.int32)
    mask = i < amount
    if misled:
        place = i
        value = read(x + start + first, memory + start + first, i, mask, DIFFERENCE)
    else:
        place = tl.load(places + chunk + i, mask=mask, other=0)
        value = tl.load(values + chunk + i, mask=mask, other=0.0)
    return place, value, mask


@triton.jit
def _amount(field, cursors, chunks, segment, tile, first, TILE: tl.constexpr):
    """Whether the sample misled, and how many numbers or candidates the tile has."""
    total = tl.load(cursors + segment)
    misled = (total < tl.load(field + 2)) | (total > tl.load(field + 5))
    numbers = tl.minimum(tl.load(field + 1) - first, TILE)
    return misled, tl.where(misled, numbers, tl.load(chunks + 2 * tile + 1))


@triton.jit
def count(
    x, memory, segments, tiles, cursors, values, places, chunks, threshold, totals,
    DIFFERENCE: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """How many numbers of a tile lie above the k-th magnitude, and how many equal it."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = segments + segment.to(tl.int64) * FIELDS
    first = number.to(tl.int64) * TILE
    misled, amount = _amount(field, cursors, chunks, segment, tile, first, TILE)
    start, chunk = tl.load(field), tl.load(chunks + 2 * tile)
    kth = tl.load(threshold + 2 * segment)
    above = tl.zeros((), dtype=tl.int32)
    tied = tl.zeros((), dtype=tl.int32)
    for begin in range(0, amount, CHUNK):
        _, value, mask = _piece(
            x, memory, values, places, start, first, chunk, misled, begin, amount, DIFFERENCE, CHUNK
        )
        key = magnitude(value).to(tl.int64)
        above += tl.sum((mask & (key > kth)).to(tl.int32), axis=0)
        tied += tl.sum((mask & (key == kth)).to(tl.int32), axis=0)
    tl.store(totals + 2 * tile, above.to(tl.int64))
    tl.store(totals + 2 * tile + 1, tied.to(tl.int64))


@triton.jit
def scan(segments, totals, TILE: tl.constexpr, CHUNK: tl.constexpr, FIELDS: tl.constexpr):
    """The counts of each tile become those of all tiles of the segment before it."""
    segment = tl.program_id(0).to(tl.int64)
    field = segments + segment * FIELDS
    tiles = (tl.load(field + 1) + TILE - 1) // TILE
    mine = totals + 2 * tl.load(field + 7)
    above = tl.zeros((), dtype=tl.int64)
    tied = tl.zeros((), dtype=tl.int64)
    for begin in range(0, tiles, CHUNK):
        i = begin + tl.arange(0, CHUNK)
        mask = i < tiles
        over = tl.load(mine + 2 * i, mask=mask, other=0)
        equal = tl.load(mine + 2 * i + 1, mask=mask, other=0)
        tl.store(mine + 2 * i, above + tl.cumsum(over, axis=0) - over, mask=mask)
        tl.store(mine + 2 * i + 1, tied + tl.cumsum(equal, axis=0) - equal, mask=mask)
        above += tl.sum(over, axis=0)
        tied += tl.sum(equal, axis=0)


@triton.jit
def write(
    x, memory, segments, tiles, cursors, values, places, chunks, threshold, totals, positions, kept,
    DIFFERENCE: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """Positions and numbers of what a tile keeps, behind those of the tiles before it."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = segments + segment.to(tl.int64) * FIELDS
    first = number.to(tl.int64) * TILE
    misled, amount = _amount(field, cursors, chunks, segment, tile, first, TILE)
    start, chunk = tl.load(field), tl.load(chunks + 2 * tile)
    results, shift = tl.load(field + 6), tl.load(field + 8)
    kth, wanted = tl.load(threshold + 2 * segment), tl.load(threshold + 2 * segment + 1)
    above, tied = tl.load(totals + 2 * tile), tl.load(totals + 2 * tile + 1)
    for begin in range(0, amount, CHUNK):
        place, value, mask = _piece(
            x, memory, values, places, start, first, chunk, misled, begin, amount, DIFFERENCE, CHUNK
        )
        key = magnitude(value).to(tl.int64)
        over = (mask & (key > kth)).to(tl.int64)
        equal = (mask & (key == kth)).to(tl.int64)
        over_before = above + tl.cumsum(over, axis=0) - over
        equal_before = tied + tl.cumsum(equal, axis=0) - equal
        stays = (over > 0) | ((equal > 0) & (equal_before < wanted))
        at = results + over_before + tl.minimum(equal_before, wanted)
        tl.store(positions + at, shift + first + place, mask=stays)
        tl.store(kept + at, value, mask=stays)
        above += tl.sum(over, axis=0)
        tied += tl.sum(equal, axis=0)
