"""The loops of codes of all segments, compiled by numba at their first use.

``reference`` defines them. Codes become symbols in a tile that stays in the first cache, and
eight symbols of up to eight bits become as many bytes in three steps: pairs of neighbouring fields move
together, then pairs of pairs, then both halves of the word.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu._simd import never_inlined
from laconic.kernels.cpu._words import larger, load_word, put_tail, smaller, store_word

U = np.uint64
N = np.int32
TILE = 3840
"""Symbols of a tile: a multiple of 8, and of 3 and 5, the numbers of symbols that may share a byte."""
_LARGEST = 1 << 29
"""No magnitude is that large; the least that makes a symbol too large without an overflow of int32."""


@inner_loop
def _to_symbols(codes, base, odd, tile):
    """Symbols of as many codes; returns the largest, and the least magnitude."""
    never_inlined()
    largest, least = N(0), N(1)
    for i in range(codes.size):
        code = N(larger(smaller(np.int64(codes[i]), _LARGEST), -_LARGEST))
        magnitude, symbol = N(abs(code) - base), N(0)
        if code == 0 and odd == 1:
            magnitude = N(1)
        else:
            symbol = N(2 * magnitude - (1 if code > 0 else 0) - 1 + odd)
        least, largest = smaller(least, magnitude), larger(largest, symbol)
        tile[i] = symbol
    return largest, least


@inner_loop
def _to_codes(tile, base, odd, codes):
    """Codes of as many symbols; returns the largest symbol."""
    never_inlined()
    largest = N(0)
    for i in range(codes.size):
        symbol = tile[i]
        largest = larger(largest, symbol)
        magnitude = N((N(symbol + 2 - odd) >> 1) + base)
        if symbol == 0 and odd == 1:
            magnitude = N(0)
        codes[i] = magnitude if symbol & 1 == odd else -magnitude
    return largest


@inner_loop
def _masks(width):
    """For fields of 8, 16 and 32 bits: the used bits of the even ones."""
    one = (U(1) << U(width)) - U(1)
    two = (U(1) << U(2 * width)) - U(1)
    four = (U(1) << U(4 * width)) - U(1)
    return one * U(0x0001000100010001), two * U(0x0000000100000001), four


@inner_loop
def _pack(tile, bytes_, count, symbols, shared, width, out):
    """``count`` symbols, which zeros follow to a multiple of 8 and of ``shared``, as the bytes of ``out``."""
    never_inlined()
    if shared > 1:
        for i in range(out.size):
            group = N(0)
            for j in range(shared - 1, -1, -1):
                group = N(group * symbols + tile[i * shared + j])
            out[i] = group
    elif width <= 8:
        one, two, four = _masks(width)
        narrow, wide, widest = U(8 - width), U(16 - 2 * width), U(32 - 4 * width)
        for i in range(tile.size):
            bytes_[i] = tile[i]
        at = np.int64(0)
        for i in range(0, count, 8):
            word = load_word(bytes_, i)
            word = word & one | word >> narrow & (one << U(width))
            word = word & two | word >> wide & (two << U(2 * width))
            word = word & four | word >> widest & (four << U(4 * width))
            if at + 8 <= out.size:
                store_word(out, at, word)
            else:
                put_tail(out, at, smaller(at + width, out.size), word)
            at += width
    else:
        word, filled, at = U(0), 0, np.int64(0)
        for i in range(count):
            symbol = U(tile[i])
            word |= symbol << U(filled)
            filled += width
            if filled >= 64:
                store_word(out, at, word)
                at += 8
                filled -= 64
                word = symbol >> U(width - filled) if filled > 0 else U(0)
        put_tail(out, at, out.size, word)


@inner_loop
def _unpack(data, at, count, shared, width, digits, bytes_, tile):
    """``count`` symbols from byte ``at`` on; returns whether digits that stand for none are 0.

    ``data`` has 8 bytes at least.
    """
    never_inlined()
    safe, rest = data.size - 8, U(0)
    if shared > 1:
        groups = -(-count // shared)
        for i in range(groups):
            word = digits[data[at + i]]
            store_word(bytes_, i * shared, word)
            rest |= word >> U(56)
        for i in range(count, groups * shared):
            rest |= U(bytes_[i])
    elif width <= 8:
        one, two, four = _masks(width)
        narrow, wide, widest = U(8 - width), U(16 - 2 * width), U(32 - 4 * width)
        for i in range(0, count, 8):
            start = smaller(at, safe)
            word = load_word(data, start) >> U(8 * (at - start))
            word = word & four | (word & (four << U(4 * width))) << widest
            word = word & two | (word & (two << U(2 * width))) << wide
            word = word & one | (word & (one << U(width))) << narrow
            store_word(bytes_, i, word)
            at += width
    else:
        mask = (U(1) << U(width)) - U(1)
        bit = 8 * at
        for i in range(count):
            start = smaller(bit >> 3, safe)
            tile[i] = N(load_word(data, start) >> U(bit - 8 * start) & mask)
            bit += width
        return True
    for i in range(tile.size):
        tile[i] = bytes_[i]
    return rest == 0


@inner_loop
def _segment(ends, symbol):
    s = 0
    while ends[s] <= symbol:
        s += 1
    return s


@loop
def put(codes, bases, starts, ends, symbols, shared, width, tile, bytes_, first, last, out):
    """The symbols from ``first``, a multiple of ``TILE``, up to ``last``; returns whether all are symbols.

    Segment s uses the columns from ``starts[s]``; its last symbol is that before ``ends[s]``. ``tile`` and
    ``bytes_`` are room for ``TILE`` symbols.
    """
    odd, size = N(symbols % 2), TILE // shared * width // 8
    s = _segment(ends, first)
    at = first // TILE * size
    largest, least = N(0), N(1)
    for begin in range(first, last, TILE):
        end = smaller(begin + TILE, last)
        filled = begin
        while filled < end:
            stop = smaller(end, ends[s])
            before = ends[s - 1] if s > 0 else 0
            column = starts[s] + filled - before
            part = codes[column : column + stop - filled]
            most, lowest = _to_symbols(part, N(bases[s]), odd, tile[filled - begin :])
            largest, least = larger(largest, most), smaller(least, lowest)
            filled = stop
            if stop == ends[s]:
                s += 1
        for i in range(end - begin, TILE):
            tile[i] = 0
        _pack(tile, bytes_, end - begin, symbols, shared, width, out[at : smaller(at + size, out.size)])
        at += size
    return largest < symbols and least > 0


@loop
def get(data, bases, starts, ends, symbols, shared, width, digits, tile, bytes_, first, last, codes):
    """The codes of the symbols from ``first``, a multiple of ``TILE``, up to ``last``.

    Returns whether all are symbols.
    ``digits`` has for each byte its digits as bytes of a word, whose highest is what is left over. ``tile``
    and ``bytes_`` are room for ``TILE`` symbols, ``bytes_`` for 8 more.
    """
    odd, size = N(symbols % 2), TILE // shared * width // 8
    s = _segment(ends, first)
    at = first // TILE * size
    largest, good = N(0), True
    for begin in range(first, last, TILE):
        end = smaller(begin + TILE, last)
        good &= _unpack(data, at, end - begin, shared, width, digits, bytes_, tile)
        at += size
        filled = begin
        while filled < end:
            stop = smaller(end, ends[s])
            before = ends[s - 1] if s > 0 else 0
            column = starts[s] + filled - before
            part = codes[column : column + stop - filled]
            largest = larger(largest, _to_codes(tile[filled - begin :], N(bases[s]), odd, part))
            filled = stop
            if stop == ends[s]:
                s += 1
    return good and largest < symbols
