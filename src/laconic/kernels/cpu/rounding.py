"""Rounding segments to levels, compiled by numba at its first use; ``rounding`` is what it must equal.

A segment is worked on in pieces that stay in the first cache. Each stage is one simple loop over a piece, so
that it becomes vector code. Levels that are successive powers of two are found in the exponent; any other
levels through the leading bits of the number, which leave at most a few levels to choose from.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu.narrow import put_signed
from laconic.kernels.cpu.philox import words
from laconic.kernels.cpu.rows import largest, load
from laconic.kernels.tables import PIECE

U = np.uint64
_UNIT = 2.0**-32


@loop
def round_columns(reading, room, levels, window, bases, divisors, sources, segment, column, last, codes):
    """Codes of the numbers of columns.

    Args:
        reading: a ``segmented.Reading``.
        room: for pieces of numbers and magnitudes, each with its bits; of the levels below and above, two of
            level numbers, and one of words.
        levels: a ``levels.Index``.
        window: how many levels below a segment's largest number may stand in it.
        bases: of each segment, the level number up to which there is only 0; -1 where it follows from the
            window and the segment's largest number. It is looked for where it matters, which must be among
            numbers below the normal range alone.
        divisors: of each segment, what magnitudes are divided by; empty: nothing.
        sources: of each segment, what to draw from, as for ``philox.words``; empty: to the nearest.
        segment: where ``column`` lies.
        column: the first; it begins a segment or follows a multiple of 4 of its numbers.
        last: the end.
        codes: of all columns, as ``views_by_dtype`` gives them.

    Returns:
        The bits of the largest magnitude.
    """
    numbers, bits, magnitudes, magnitude_bits, low, high, level, below, drawn = room
    most = reading.mask[0] - reading.mask[0]
    at_random, divided = sources.size > 0, divisors.size > 0
    while column < last:
        start = reading.bounds[segment]
        end = min(reading.bounds[segment + 1], last)
        base = bases[segment]
        for at in range(column, end, PIECE):
            n = min(PIECE, end - at)
            load(reading, segment, at - start, n, numbers, bits)
            _clear(bits[:n], reading.mask[0], magnitude_bits)
            normal, top = _is_normal(magnitude_bits[:n], reading.mask[0], levels.smallest)
            most = max(most, top)
            if divided:
                _divide(magnitudes[:n], divisors[segment])
                normal, _ = _is_normal(magnitude_bits[:n], reading.mask[0], levels.smallest)
            if not normal and base < 0:
                size = reading.bounds[segment + 1] - start
                top = largest(reading, segment, 0, size, reading.mask[0] * 0, numbers, bits)
                base = _base_below(top, levels, window)
                load(reading, segment, at - start, n, numbers, bits)
            if at_random:
                words(sources[segment], U((at - start) // 4), drawn[: (n + 3) // 4 * 4])
            known = max(base, 0)
            part = level[:n]
            if normal and levels.powers and at_random:
                _powers_at_random(magnitudes[:n], magnitude_bits[:n], drawn, levels, known, part)
            elif normal and levels.powers:
                _nearest_powers(magnitude_bits[:n], levels, known, part)
            else:
                if normal and levels.single:
                    _look_up(magnitudes[:n], magnitude_bits[:n], levels, below)
                else:
                    _search(magnitudes[:n], magnitude_bits[:n], levels, below)
                _neighbours(below[:n], levels.table, known, low, high)
                if at_random:
                    _at_random(magnitudes[:n], below, low, high, drawn, part)
                else:
                    _to_nearest(magnitudes[:n], below, low, high, part)
                _raise(part, known, levels.top)
            put_signed(numbers[:n], part, at, codes)
        column = end
        segment += 1
    return most


@inner_loop
def _base_below(most, levels, window):
    """As ``levels.base_below``, of the bits of the largest magnitude."""
    low, high = 0, levels.top
    while low < high:
        middle = (low + high) >> 1
        if levels.bits[middle] <= most:
            low = middle + 1
        else:
            high = middle
    return max(min(low + 1, levels.top) - window, 0)


@inner_loop
def _clear(bits, mask, magnitude_bits):
    for i in range(bits.size):
        magnitude_bits[i] = bits[i] & mask


@inner_loop
def _divide(magnitudes, divisor):
    one = magnitudes.dtype.type(1)
    for i in range(magnitudes.size):
        share = magnitudes[i] / divisor
        magnitudes[i] = share if share < one else one


@inner_loop
def _is_normal(magnitude_bits, mask, smallest):
    """Whether all but zeros are at least ``smallest``; and the largest."""
    one = mask // mask
    least, most = mask, mask - mask
    for i in range(magnitude_bits.size):
        magnitude = magnitude_bits[i]
        # One less, so that 0 becomes the greatest of all.
        least = min(least, (magnitude - one) & mask)
        most = max(most, magnitude)
    return least >= smallest - one, most


@inner_loop
def _nearest_powers(magnitude_bits, levels, base, codes):
    """The exponent, after adding half; below level ``base + 1`` that level or 0."""
    whole, middle = levels.bits[base], levels.middles[base]
    # The width is written out, because only a known shift keeps 32-bit numbers in 32-bit lanes.
    if levels.width == 23:
        _exponents(magnitude_bits, 23, levels.offset, levels.top, base + 1, whole, middle, codes)
    else:
        _exponents(magnitude_bits, 52, levels.offset, levels.top, base + 1, whole, middle, codes)


@inner_loop
def _exponents(magnitude_bits, width, offset, top, first, whole, middle, codes):
    integer = magnitude_bits.dtype.type
    half, top, first = integer(1 << (width - 1)), np.int32(top), np.int32(first)
    for i in range(magnitude_bits.size):
        magnitude = magnitude_bits[i]
        exponent = np.int32(integer(magnitude + half) >> width)
        level = min(np.int32(exponent + offset), top)
        low = first if magnitude >= middle else np.int32(0)
        codes[i] = level if magnitude >= whole else low


@inner_loop
def _powers_at_random(magnitudes, magnitude_bits, drawn, levels, base, codes):
    """The exponent, and one more where the word lies below the fraction."""
    if levels.width == 23:
        _exponents_up(magnitude_bits, drawn, 23, 9, 0, levels.offset, levels.top, codes)
    else:
        _exponents_up(magnitude_bits, drawn, 52, 0, 20, levels.offset, levels.top, codes)
    whole, first, gap = levels.bits[base], np.int32(base + 1), levels.table[base + 1]
    if whole > levels.smallest:
        for i in range(magnitudes.size):
            low = first if drawn[i] * _UNIT < np.float64(magnitudes[i] / gap) else np.int32(0)
            codes[i] = codes[i] if magnitude_bits[i] >= whole else low
    else:
        # Nothing but zeros lies below the lowest level.
        for i in range(magnitudes.size):
            codes[i] = codes[i] if magnitude_bits[i] >= whole else np.int32(0)


@inner_loop
def _exponents_up(magnitude_bits, drawn, width, right, left, offset, top, codes):
    integer = magnitude_bits.dtype.type
    top, fraction = np.int32(top), integer((1 << width) - 1)
    for i in range(magnitude_bits.size):
        magnitude = magnitude_bits[i]
        word = integer(integer(drawn[i] >> np.uint32(right)) << left)
        up = np.int32(1) if word < integer(magnitude & fraction) else np.int32(0)
        level = np.int32(np.int32(magnitude >> width) + offset)
        codes[i] = min(np.int32(level + up), top)


@inner_loop
def _look_up(magnitudes, magnitude_bits, levels, below):
    """How many levels do not exceed each magnitude, of numbers whose leading bits only one level shares."""
    _buckets(magnitude_bits, levels.shift, levels.lowest, levels.last, below)
    # A condition is added as a number: a branch that cannot be foretold would cost more than all the rest.
    for i in range(magnitudes.size):
        bucket = U(below[i])
        below[i] = levels.starts[bucket] + np.int32(magnitudes[i] >= levels.edges[bucket])


@inner_loop
def _buckets(magnitude_bits, shift, lowest, last, buckets):
    for i in range(magnitude_bits.size):
        bucket = np.int32((magnitude_bits[i] >> shift) - lowest)
        buckets[i] = min(max(bucket, np.int32(0)), np.int32(last))


@inner_loop
def _search(magnitudes, magnitude_bits, levels, below):
    """As :func:`_look_up`, by bisection among the levels that share their leading bits."""
    _buckets(magnitude_bits, levels.shift, levels.lowest, levels.last, below)
    for i in range(magnitudes.size):
        bucket = below[i]
        low, high = levels.starts[bucket], levels.starts[bucket + 1]
        while low < high:
            middle = (low + high + 1) >> 1
            if magnitudes[i] >= levels.table[middle]:
                low = middle
            else:
                high = middle - 1
        below[i] = low


@inner_loop
def _neighbours(below, table, base, low, high):
    """The levels around, and ``below`` counted from the base; up to the base there is only 0."""
    if base > 0:
        for i in range(below.size):
            below[i] = max(np.int32(below[i] - base), np.int32(0))
    for i in range(below.size):
        low[i] = table[U(below[i] + base)]
        high[i] = table[U(below[i] + base + 1)]
    if base > 0:
        for i in range(below.size):
            low[i] = low[i] if below[i] > 0 else table[0]


@inner_loop
def _at_random(magnitudes, below, low, high, drawn, codes):
    for i in range(codes.size):
        # Above the highest level the table repeats it: the share is not finite, and the code is cut later.
        share = np.float64((magnitudes[i] - low[i]) / (high[i] - low[i]))
        codes[i] = below[i] + np.int32(drawn[i] * _UNIT < share)


@inner_loop
def _to_nearest(magnitudes, below, low, high, codes):
    for i in range(codes.size):
        codes[i] = below[i] + np.int32(high[i] - magnitudes[i] <= magnitudes[i] - low[i])


@inner_loop
def _raise(codes, base, top):
    """Codes that count from 0 again, at most the highest."""
    for i in range(codes.size):
        code = min(np.int32(codes[i] + base), np.int32(top))
        codes[i] = code if codes[i] > 0 else np.int32(0)
