"""Adding nodes' columns to vectors, by loops that numba compiles at their first use.

Every coordinate has one thread, and there the order of additions is fixed: no result depends on the number of
threads. Tiles of a segment stay in the cache while all nodes' columns are added and the sum is written. A
product is rounded before it is added; LLVM fuses the two only where it is told to.

In what is passed as named tuples, an array without elements stands for what is not there.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._halves import widened
from laconic.kernels.cpu._jit import inlined, inner_loop, loop
from laconic.kernels.cpu._simd import LANES, at_address, brain, fence, load, never_inlined, stream
from laconic.kernels.cpu._words import larger, smaller
from laconic.kernels.cpu.decoding import fill_table, number

U = np.uint64
TILE = 1 << 16
"""Numbers that are summed and written while in the second cache."""
STEP = 1 << 12
"""Numbers that are summed in the first cache and subtracted from parameters."""
STREAMED = 1 << 20
"""Numbers from which on the result is written past the caches, which do not hold it and need not read it."""
_floats = load(LANES)


@inlined
def _begin(place, scratch, s, begin, end, streamed):
    """A tile that holds the memory's numbers, or zeros: of the memory, of ``out``, or the scratch."""
    size = end - begin
    tile = scratch[:size]
    if place.out.size > 0 and not streamed and place.settings.size == 0:
        start = place.out_starts[s] + begin
        tile = place.out[start : start + size]
    if place.memory.size > 0:
        start = place.memory_starts[s] + begin
        source = place.memory[start : start + size]
        if place.commit:
            return source
        for i in range(size):
            tile[i] = source[i]
    else:
        for i in range(size):
            tile[i] = 0
    return tile


@inner_loop
def _end(place, tile, s, begin, streamed):
    """Write the tile out, where it was added to elsewhere."""
    never_inlined()
    if place.brains.size == 0 and place.out.size == 0:
        return
    start = place.out_starts[s] + begin
    steps = place.settings.size > 0
    if place.brains.size > 0:
        brains = place.brains[start : start + tile.size]
        if steps:
            decay, rate = place.settings[s, 0], place.settings[s, 1]
            for i in range(tile.size):
                brains[i] = brain(widened(brains[i]) * decay - tile[i] * rate)
            return
        for i in range(tile.size):
            brains[i] = brain(tile[i])
        return
    out = place.out[start : start + tile.size]
    if steps:
        decay, rate = place.settings[s, 0], place.settings[s, 1]
        for i in range(tile.size):
            out[i] = out[i] * decay - tile[i] * rate
        return
    if not streamed:
        if place.memory.size > 0 and place.commit:
            for i in range(tile.size):
                out[i] = tile[i]
        return
    source, target = np.int64(tile.ctypes.data), np.int64(out.ctypes.data)
    first = smaller(-target % 64 // tile.itemsize, tile.size)
    last = first + (tile.size - first) // LANES * LANES
    for i in range(first):
        out[i] = tile[i]
    for i in range(first, last, LANES):
        stream(_floats(source, i, tile), target, i)
    for i in range(last, tile.size):
        out[i] = tile[i]


@inner_loop
def _end_touched(place, group, nodes, like, tile, cursors, s, begin, end):
    """Decay parameters, subtract the tile where it has columns, which end before the cursors, and zero it."""
    never_inlined()
    start, rate = place.out_starts[s] + begin, place.settings[s, 1]
    if place.settings[s, 0] != 1:
        decay, out = place.settings[s, 0], place.out[start : start + end - begin]
        for i in range(out.size):
            out[i] = out[i] * decay
    for node in range(cursors.size):
        positions = nodes.positions[node] + 8 * group.bounds[s]
        for c in range(cursors[node] - 1, -1, -1):
            p = at_address(positions, c, like)
            if p < begin:
                break
            at, i = U(start + p - begin), U(p - begin)
            # Where several nodes have a column, the first subtracts all, and the others 0.
            if place.brains.size > 0:
                place.brains[at] = brain(widened(place.brains[at]) - tile[i] * rate)
            else:
                place.out[at] = place.out[at] - tile[i] * rate
            tile[i] = 0


@inner_loop
def _first_segment(offsets, coordinate):
    s = 0
    while offsets[s + 1] <= coordinate:
        s += 1
    return s


@inner_loop
def _lower_bound(address, count, like, coordinate):
    """How many of a node's positions in a segment are below the coordinate."""
    left, right = np.int64(0), count
    while left < right:
        middle = (left + right) // 2
        if at_address(address, middle, like) < coordinate:
            left = middle + 1
        else:
            right = middle
    return left


@loop
def add_sparse(place, group, nodes, like, before, scratch, cursors, first, last):
    """Add the numbers at the coordinates from ``first`` up to ``last``; returns how many they were.

    ``scratch`` is room for a tile, ``cursors`` for an integer a node.
    """
    columns = group.bounds[-1]
    recording, streamed, steps = before.size > 0, group.offsets[-1] >= STREAMED, place.settings.size > 0
    width = STEP if steps else TILE
    added = np.int64(0)
    s = _first_segment(group.offsets, first)
    while s < group.offsets.size - 1 and group.offsets[s] < last:
        from_, column = larger(first - group.offsets[s], 0), group.bounds[s]
        to = smaller(last, group.offsets[s + 1]) - group.offsets[s]
        for node in range(cursors.size):
            address = nodes.positions[node] + 8 * column
            cursors[node] = _lower_bound(address, nodes.counts[node, s], like, from_)
        # Decayed parameters of 16 bits would be rounded before the subtraction.
        touched = steps and (place.settings[s, 0] == 1 or place.brains.size == 0)
        tile = scratch[: smaller(width, to - from_) if touched else 0]
        for i in range(tile.size):
            tile[i] = 0
        for begin in range(from_, to, width):
            end = smaller(begin + width, to)
            if not touched:
                tile = _begin(place, scratch, s, begin, end, streamed)
            for node in range(cursors.size):
                weight, factor, count = nodes.weights[node], nodes.factors[node, s], nodes.counts[node, s]
                positions, values, kept = nodes.positions[node], nodes.values[node], node * columns
                c, previous = cursors[node], begin - 1
                while c < count:
                    p = at_address(positions, column + c, like)
                    if p >= end:
                        break
                    if p > previous:
                        previous = p
                        # Unsigned, so that no index counts from the end.
                        at = U(p - begin)
                        old = tile[at]
                        if recording:
                            before[U(kept + column + c)] = old
                        tile[at] = old + weight * (at_address(values, column + c, before) * factor)
                        added += 1
                    c += 1
                cursors[node] = c
            if touched:
                _end_touched(place, group, nodes, like, tile, cursors, s, begin, end)
            else:
                _end(place, tile, s, begin, streamed)
        s += 1
    fence()
    return added


@loop
def add_dense(place, group, nodes, like, levels, before, scratch, table, first, last):
    """As ``add_sparse``, of columns for every coordinate; ``before`` gets the memory.

    ``levels`` is None where values are numbers; codes have the dtype of ``like``. ``scratch`` and ``table``
    are room for a tile. Returns whether all codes have a level.
    """
    fits, streamed = True, group.offsets[-1] >= STREAMED
    width = STEP if place.settings.size > 0 else TILE
    one = nodes.one
    s = _first_segment(group.offsets, first)
    while s < group.offsets.size - 1 and group.offsets[s] < last:
        offset = group.offsets[s]
        from_, to = larger(first - offset, 0), smaller(last, group.offsets[s + 1]) - offset
        for begin in range(from_, to, width):
            end = smaller(begin + width, to)
            tile = _begin(place, scratch, s, begin, end, streamed)
            if before.size > 0:
                kept = before[offset + begin : offset + end]
                for i in range(tile.size):
                    kept[i] = tile[i]
            for node in range(nodes.weights.size):
                weight, factor, values = nodes.weights[node], nodes.factors[node, s], nodes.values[node]
                if levels is None:
                    if nodes.brains:
                        for i in range(tile.size):
                            value = widened(at_address(values, offset + begin + i, place.brains))
                            tile[i] += weight * (value * factor)
                    else:
                        for i in range(tile.size):
                            value = at_address(values, offset + begin + i, before)
                            tile[i] += weight * (value * factor)
                else:
                    at = begin
                    while at < end:
                        block = at // group.block
                        stop = smaller(end, (block + 1) * group.block)
                        block += group.blocks[s]
                        scale, low, lowered = one, one, nodes.lows[node] != 0
                        if nodes.scales[node] != 0:
                            scale = at_address(nodes.scales[node], block, before)
                        if lowered:
                            low = at_address(nodes.lows[node], block, before)
                        part = tile[at - begin : stop - begin]
                        fits &= _add_codes(
                            part,
                            values,
                            offset + at,
                            like,
                            levels,
                            scale,
                            low,
                            lowered,
                            factor,
                            weight,
                            table,
                        )
                        at = stop
            _end(place, tile, s, begin, streamed)
        s += 1
    fence()
    return fits


@inner_loop
def _add_codes(tile, codes, start, like, levels, scale, low, lowered, factor, weight, table):
    middle = np.int64(levels.size // 2)
    least, largest = np.int64(0), np.int64(0)
    for i in range(tile.size):
        code = np.int64(at_address(codes, start + i, like))
        least, largest = smaller(least, code), larger(largest, code)
    if least < -middle or largest > middle:
        return False
    if tile.size >= levels.size:
        fill_table(levels, scale, low, lowered, factor, weight, table)
        for i in range(tile.size):
            tile[i] += table[U(middle + at_address(codes, start + i, like))]
    else:
        for i in range(tile.size):
            level = middle + at_address(codes, start + i, like)
            tile[i] += number(level, levels, scale, low, lowered, factor) * weight
    return True
