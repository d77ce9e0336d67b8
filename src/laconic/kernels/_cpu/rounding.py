"""Rounding rows to levels, compiled by numba at its first use; ``rounding`` is what it must equal.

A row is worked on in pieces that stay in the first cache. Each stage is one simple loop over a piece, so that
it becomes vector code. Levels that are successive powers of two are found in the exponent; any other levels
through the leading bits of the number, which leave at most a few levels to choose from.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu.narrow import put_signed
from laconic.kernels._cpu.philox import words
from laconic.kernels._cpu.rows import PIECE, largest, load  # noqa: F401

U = np.uint64
_UNIT = 2.0**-32


@loop
def round_row(row, levels, base, scale, source, start, end, codes):
    """Codes of the numbers in [start, end), and ``out`` with their values added.

    Args:
        row: a ``steps.Row``.
        levels: a ``rounding.Index``.
        base: level number up to which there is only 0; -1 where it is not known, because the row's largest
            number is not. That matters only to numbers below the normal range.
        scale: two numbers of the row's dtype: what magnitudes are divided by, and what levels are
            multiplied by; the first is 0 where there is no scale.
        source: what to draw from, as for ``philox.words``; empty: to the nearest.
        codes: all of the row, as ``_narrow.by_width`` gives them.

    Returns:
        Where it stopped, for want of the base, or ``end``; and the largest magnitude before it, as bits.
    """
    kind = row.mask.dtype
    numbers = np.empty(PIECE, row.x.dtype)
    magnitudes = np.empty(PIECE, row.x.dtype)
    bits, magnitude_bits = numbers.view(kind), magnitudes.view(kind)
    drawn = np.empty(PIECE, np.uint32)
    level, below = np.empty(PIECE, np.int32), np.empty(PIECE, np.int32)
    low, high = np.empty(PIECE, row.x.dtype), np.empty(PIECE, row.x.dtype)
    low_bits = low.view(kind)
    most = row.mask[0] - row.mask[0]
    known = max(base, 0)
    for at in range(start, end, PIECE):
        n = min(PIECE, end - at)
        load(row, at, numbers[:n], bits[:n])
        if scale[0] > 0:
            _shares(numbers[:n], scale[0], magnitudes)
        else:
            _clear(bits[:n], row.mask[0], magnitude_bits)
        normal, top = _is_normal(magnitude_bits[:n], row.mask[0], levels.smallest)
        if not normal and base < 0:
            return at, most
        most = max(most, top)
        if source.size > 0:
            words(source, U(at // 4), drawn[: (n + 3) // 4 * 4])
        part = level[:n]
        if normal and levels.powers and source.size > 0:
            _powers_at_random(magnitudes[:n], magnitude_bits[:n], drawn, levels, known, part)
        elif normal and levels.powers:
            _nearest_powers(magnitude_bits[:n], levels, known, part)
        else:
            if normal and levels.single:
                _look_up(magnitudes[:n], magnitude_bits[:n], levels, below)
            else:
                _search(magnitudes[:n], magnitude_bits[:n], levels, below)
            _neighbours(below[:n], levels.table, known, low, high)
            if source.size > 0:
                _at_random(magnitudes[:n], below, low, high, drawn, part)
            else:
                _to_nearest(magnitudes[:n], below, low, high, part)
            _raise(part, known, levels.top)
        if row.out.size > 0:
            if normal and levels.powers:
                _powers(part, levels, low_bits)
            else:
                _gather(part, levels.table, low)
            _add(numbers[:n], low, scale[1], row.weight, row.out[at : at + n])
        put_signed(numbers[:n], part, at, codes)
    return end, most


@loop
def sign_row(row, scale, start, end, codes):
    """Codes 1 and -1 by the signs of the numbers in [start, end), and ``out`` with their values added."""
    numbers = np.empty(PIECE, row.x.dtype)
    bits = numbers.view(row.mask.dtype)
    for at in range(start, end, PIECE):
        n = min(PIECE, end - at)
        load(row, at, numbers[:n], bits[:n])
        part = codes[at : at + n]
        for i in range(n):
            part[i] = np.int8(-1) if numbers[i] < 0 else np.int8(1)
        if row.out.size > 0:
            out = row.out[at : at + n]
            value = scale * row.weight
            for i in range(n):
                out[i] = out[i] + (-value if numbers[i] < 0 else value)


@loop
def _clear(bits, mask, magnitude_bits):
    for i in range(bits.size):
        magnitude_bits[i] = bits[i] & mask


@loop
def _shares(numbers, scale, shares):
    one = numbers.dtype.type(1)
    for i in range(numbers.size):
        share = abs(numbers[i]) / scale
        shares[i] = share if share < one else one


@loop
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


@loop
def _nearest_powers(magnitude_bits, levels, base, codes):
    """The exponent, after adding half; below level ``base + 1`` that level or 0."""
    whole, middle = levels.bits[base], levels.middles[base]
    # The width is written out, because only a known shift keeps 32-bit numbers in 32-bit lanes.
    if levels.width == 23:
        _exponents(magnitude_bits, 23, levels.offset, levels.top, base + 1, whole, middle, codes)
    else:
        _exponents(magnitude_bits, 52, levels.offset, levels.top, base + 1, whole, middle, codes)


@loop
def _exponents(magnitude_bits, width, offset, top, first, whole, middle, codes):
    integer = magnitude_bits.dtype.type
    half, top, first = integer(1 << (width - 1)), np.int32(top), np.int32(first)
    for i in range(magnitude_bits.size):
        magnitude = magnitude_bits[i]
        exponent = np.int32(integer(magnitude + half) >> width)
        level = min(np.int32(exponent + offset), top)
        low = first if magnitude >= middle else np.int32(0)
        codes[i] = level if magnitude >= whole else low


@loop
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


@loop
def _exponents_up(magnitude_bits, drawn, width, right, left, offset, top, codes):
    integer = magnitude_bits.dtype.type
    top, fraction = np.int32(top), integer((1 << width) - 1)
    for i in range(magnitude_bits.size):
        magnitude = magnitude_bits[i]
        word = integer(integer(drawn[i] >> np.uint32(right)) << left)
        up = np.int32(1) if word < integer(magnitude & fraction) else np.int32(0)
        level = np.int32(np.int32(magnitude >> width) + offset)
        codes[i] = min(np.int32(level + up), top)


@loop
def _look_up(magnitudes, magnitude_bits, levels, below):
    """How many levels do not exceed each magnitude, of numbers whose leading bits only one level shares."""
    _buckets(magnitude_bits, levels.shift, levels.lowest, levels.last, below)
    # A condition is added as a number: a branch that cannot be foretold would cost more than all the rest.
    for i in range(magnitudes.size):
        bucket = U(below[i])
        below[i] = levels.starts[bucket] + np.int32(magnitudes[i] >= levels.edges[bucket])


@loop
def _buckets(magnitude_bits, shift, lowest, last, buckets):
    for i in range(magnitude_bits.size):
        bucket = np.int32((magnitude_bits[i] >> shift) - lowest)
        buckets[i] = min(max(bucket, np.int32(0)), np.int32(last))


@loop
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


@loop
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


@loop
def _at_random(magnitudes, below, low, high, drawn, codes):
    for i in range(codes.size):
        # Above the highest level the table repeats it: the share is not finite, and the code is cut later.
        share = np.float64((magnitudes[i] - low[i]) / (high[i] - low[i]))
        codes[i] = below[i] + np.int32(drawn[i] * _UNIT < share)


@loop
def _to_nearest(magnitudes, below, low, high, codes):
    for i in range(codes.size):
        codes[i] = below[i] + np.int32(high[i] - magnitudes[i] <= magnitudes[i] - low[i])


@loop
def _raise(codes, base, top):
    """Codes that count from 0 again, at most the highest."""
    for i in range(codes.size):
        code = min(np.int32(codes[i] + base), np.int32(top))
        codes[i] = code if codes[i] > 0 else np.int32(0)


@loop
def _powers(codes, levels, value_bits):
    """The levels of codes, where all are powers of two in the normal range."""
    if levels.width == 23:
        _shifted(codes, 23, levels.offset, value_bits)
    else:
        _shifted(codes, 52, levels.offset, value_bits)


@loop
def _shifted(codes, width, offset, value_bits):
    integer = value_bits.dtype.type
    for i in range(codes.size):
        value = integer(integer(codes[i] - offset) << width)
        value_bits[i] = value if codes[i] > 0 else integer(0)


@loop
def _gather(codes, table, values):
    for i in range(codes.size):
        values[i] = table[U(codes[i])]


@loop
def _add(numbers, values, scale, weight, out):
    for i in range(numbers.size):
        value = values[i] * scale
        value = -value if numbers[i] < 0 else value
        out[i] = out[i] + value * weight
