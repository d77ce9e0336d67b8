"""The loops of codes, compiled by numba at their first use; ``packing`` is what they must equal."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop

U = np.uint64


@loop
def _symbol(code, base, has_zero):
    """The symbol of a code; at least 2^63 where there is none."""
    magnitude = abs(code) - base
    if not has_zero:
        return U(2 * magnitude - 1 - (code > 0))
    if code == 0:
        return U(0)
    return U(2 * magnitude - (code > 0)) if magnitude > 0 else U(1) << U(63)


@loop
def _code(symbol, base, has_zero):
    """The code of a symbol."""
    if not has_zero:
        magnitude = (symbol >> 1) + 1
        return -magnitude if symbol & 1 else magnitude
    if symbol == 0:
        return np.int64(0)
    magnitude = ((symbol + 1) >> 1) + base
    return magnitude if symbol & 1 else -magnitude


@loop
def put_codes(codes, base, has_zero, symbols, width, words):
    """The symbols of codes, ``width`` bits each; returns whether all are symbols."""
    word, filled, at = U(0), 0, 0
    largest = U(0)
    for i in range(codes.size):
        symbol = _symbol(np.int64(codes[i]), base, has_zero)
        largest = max(largest, symbol)
        word |= symbol << U(filled)
        filled += width
        if filled >= 64:
            words[at] = word
            at += 1
            filled -= 64
            word = symbol >> U(width - filled) if filled > 0 else U(0)
    if filled > 0:
        words[at] = word
    return largest < U(symbols)


@loop
def get_codes(words, base, has_zero, symbols, width, codes):
    """As many codes as there is room for; returns whether all are symbols."""
    mask = (U(1) << U(width)) - U(1)
    word, left, at = words[0], 64, 1
    largest = np.int64(0)
    for i in range(codes.size):
        if left >= width:
            bits = word & mask
            word >>= U(width)
            left -= width
        else:
            more = words[at]
            at += 1
            bits = (word | more << U(left)) & mask
            word = more >> U(width - left)
            left += 64 - width
        symbol = np.int64(bits)
        largest = max(largest, symbol)
        codes[i] = _code(symbol, base, has_zero)
    return largest < symbols


@loop
def put_groups(codes, base, has_zero, symbols, shared, out):
    """``shared`` symbols to a byte, the first one lowest; returns whether all are symbols."""
    largest = U(0)
    for i in range(out.size):
        group = U(0)
        for j in range(min(codes.size, (i + 1) * shared) - 1, i * shared - 1, -1):
            symbol = _symbol(np.int64(codes[j]), base, has_zero)
            largest = max(largest, symbol)
            group = group * U(symbols) + symbol
        out[i] = group
    return largest < U(symbols)


@loop
def get_groups(data, base, has_zero, symbols, shared, codes):
    """As many codes as there is room for; returns whether nothing is left over in any byte."""
    table = np.empty((256, shared), np.int32)
    left = np.zeros(256, np.bool_)
    for byte in range(256):
        group = byte
        for j in range(shared):
            table[byte, j] = _code(group % symbols, base, has_zero)
            group //= symbols
        left[byte] = group > 0
    good = True
    whole = codes.size // shared
    for i in range(whole):
        good &= not left[data[i]]
        for j in range(shared):
            codes[i * shared + j] = table[data[i], j]
    if whole < data.size:
        last = codes.size - whole * shared
        for j in range(last):
            codes[whole * shared + j] = table[data[whole], j]
        good &= data[whole] < symbols**last
    return good
