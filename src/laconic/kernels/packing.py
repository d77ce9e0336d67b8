"""Positions and codes as bits and back, in plain NumPy: what the loops of ``coding`` must equal.

Bits are numbered from the lowest of the first byte, and a number of ``width`` bits has its lowest bit first.
What does not fill its last byte is followed by zeros. Functions that read raise ValueError for bytes that
those that write cannot have made; they are given exactly as many bytes as were written.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from laconic.kernels._narrow import CODE_DTYPES, code_dtype

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.signedinteger[Any]]

RICE_BLOCK = 64
"""Gaps that share a number of low bits."""

RICE_WIDTH = 5
"""Bits of a number of low bits."""


def put_bits(numbers: Numbers, width: int) -> Bytes:
    """Numbers in [0, 2^width) one after another.

    Example:
        >>> put_bits(np.array([1, 2, 3]), 3)
        array([209,   0], dtype=uint8)
    """
    bits = (numbers[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def get_bits(data: Bytes, width: int, count: int) -> Numbers:
    """The ``count`` numbers of ``width`` bits."""
    bits = np.unpackbits(data, bitorder="little")
    if bits[width * count :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    weighted = bits[: width * count].reshape(count, width).astype(np.int64) << np.arange(width)
    numbers: Numbers = weighted.sum(axis=1)
    return numbers


def put_ones(places: Numbers, length: int) -> Bytes:
    """``length`` bits with ones at the places."""
    bits = np.zeros(length, np.uint8)
    bits[places] = 1
    return np.packbits(bits, bitorder="little")


def get_ones(data: Bytes, length: int, count: int) -> Numbers:
    """The places of ``count`` ones among ``length`` bits, ascending."""
    places = np.flatnonzero(np.unpackbits(data, bitorder="little")).astype(np.int64)
    if places.size != count or (count and places[-1] >= length):
        raise ValueError(f"{places.size} of {length} bits are ones, not {count}")
    return places


def check_ascending(positions: Numbers, d: int) -> None:
    """Refuse positions that do not ascend within [0, d)."""
    if positions.size and (positions[0] < 0 or positions[-1] >= d or bool((np.diff(positions) <= 0).any())):
        raise ValueError(f"the positions do not ascend within [0, {d})")


def put_bitmap(positions: Numbers, d: int) -> Bytes:
    """One bit for each coordinate."""
    check_ascending(positions, d)
    return put_ones(positions, d)


def get_bitmap(data: Bytes, d: int, k: int) -> Numbers:
    """The k positions marked among d."""
    return get_ones(data, d, k)


def put_elias_fano(positions: Numbers, d: int, low: int) -> Bytes:
    """The low bits of each position, then a one at ``(position >> low) + number`` for each."""
    check_ascending(positions, d)
    k = positions.size
    high = put_ones((positions >> low) + np.arange(k), k + ((d - 1) >> low))
    return np.concatenate((put_bits(positions & ((1 << low) - 1), low), high))


def get_elias_fano(data: Bytes, d: int, k: int, low: int) -> Numbers:
    """The k positions in [0, d)."""
    cut = (k * low + 7) // 8
    high = get_ones(data[cut:], k + ((d - 1) >> low), k)
    positions = ((high - np.arange(k)) << low) | get_bits(data[:cut], low, k)
    check_ascending(positions, d)
    return positions


def put_cells(positions: Numbers, d: int, length: int, count: int) -> Bytes:
    """Each position within its cell, where every cell of ``length`` coordinates holds ``count``."""
    check_ascending(positions, d)
    places = positions - np.arange(positions.size) // count * length
    if places.min(initial=0) < 0 or places.max(initial=0) >= length:
        raise ValueError(f"the positions do not lie {count} in each {length}")
    return put_bits(places, (length - 1).bit_length())


def get_cells(data: Bytes, d: int, k: int, length: int, count: int) -> Numbers:
    """The k positions in [0, d)."""
    places = get_bits(data, (length - 1).bit_length(), k)
    if places.max(initial=0) >= length:
        raise ValueError(f"a position lies outside its cell of {length} coordinates")
    positions = places + np.arange(k) // count * length
    check_ascending(positions, d)
    return positions


def put_rice(positions: Numbers, d: int) -> tuple[Bytes, Bytes, Bytes]:
    """The gaps between positions, each block with its own number of low bits.

    A gap is what lies between a position and the one before, so 0 for neighbours; the first counts from 0.
    Of the numbers of low bits that make a block smallest the lowest is taken.

    Returns:
        The numbers of low bits; the low bits of each gap; for each gap as many zeros as the rest says, then
        a one.
    """
    check_ascending(positions, d)
    gaps = np.diff(positions, prepend=-1) - 1
    starts = range(0, gaps.size, RICE_BLOCK)
    lows = [_best_low(gaps[start : start + RICE_BLOCK]) for start in starts]
    each = np.repeat(lows, RICE_BLOCK)[: gaps.size].astype(np.int64)
    bits = np.concatenate(
        [(gap >> np.arange(low)) & 1 for gap, low in zip(gaps.tolist(), each.tolist(), strict=True)]
    )
    places = np.cumsum((gaps >> each) + 1) - 1
    return (
        put_bits(np.array(lows, np.int64), RICE_WIDTH),
        np.packbits(bits.astype(np.uint8), bitorder="little"),
        put_ones(places, int(places[-1]) + 1),
    )


def _best_low(gaps: Numbers) -> int:
    return min(range(1 << RICE_WIDTH), key=lambda low: gaps.size * low + int((gaps >> low).sum()))


def rice_lows(data: Bytes, k: int) -> tuple[Numbers, int]:
    """The numbers of low bits, and the low bits of all gaps together."""
    lows = get_bits(data, RICE_WIDTH, -(-k // RICE_BLOCK))
    return lows, int(np.repeat(lows, RICE_BLOCK)[:k].sum())


def get_rice(lows: Numbers, low: Bytes, high: Bytes, d: int, k: int) -> Numbers:
    """The k positions in [0, d)."""
    each = np.repeat(lows, RICE_BLOCK)[:k]
    bits = np.unpackbits(low, bitorder="little")
    if bits[each.sum() :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    starts = np.cumsum(each) - each
    rest = [
        int(bits[s : s + n].astype(np.int64) @ (1 << np.arange(n))) for s, n in zip(starts, each, strict=True)
    ]
    ones = get_ones(high, 8 * high.size, k)
    if high[-1] == 0:
        raise ValueError("bytes of zeros follow the last gap")
    zeros = np.diff(ones, prepend=-1) - 1
    if bool((zeros > d >> each).any()):
        raise ValueError(f"the positions do not ascend within [0, {d})")
    positions: Numbers = np.cumsum((zeros << each) + rest + 1) - 1
    check_ascending(positions, d)
    return positions


def put_codes(codes: Codes, base: int, symbols: int, shared: int, width: int) -> Bytes:
    """Codes as symbols, ``shared`` to a group of ``width`` bits.

    An odd number of symbols has 0 among the codes: 0 -> 0, m -> 2(m - base) - 1, -m -> 2(m - base). An even
    one has not: m -> 2m - 2, -m -> 2m - 1. Symbols that share a group are digits, the first one lowest.
    """
    wide = codes.astype(np.int64)
    magnitude = np.abs(wide) - base
    if symbols % 2:
        numbers = np.where(wide == 0, 0, 2 * magnitude - (wide > 0))
        good = bool(((wide == 0) | (magnitude > 0)).all())
    else:
        numbers = 2 * magnitude - 1 - (wide > 0)
        good = True
    if not good or numbers.min(initial=0) < 0 or numbers.max(initial=0) >= symbols:
        raise ValueError(f"the codes are none of {symbols} symbols")
    if shared == 1:
        return put_bits(numbers, width)
    digits = np.zeros(-(-numbers.size // shared) * shared, np.int64)
    digits[: numbers.size] = numbers
    return put_bits((digits.reshape(-1, shared) * symbols ** np.arange(shared)).sum(axis=1), width)


def get_codes(data: Bytes, base: int, symbols: int, shared: int, width: int, k: int, top: int) -> Codes:
    """The k codes, in the dtype of codes up to ``top``."""
    if shared == 1:
        numbers = get_bits(data, width, k)
    else:
        groups = get_bits(data, width, -(-k // shared))
        digits = (groups[:, None] // symbols ** np.arange(shared) % symbols).reshape(-1)
        if groups.max(initial=0) >= symbols**shared or digits[k:].any():
            raise ValueError(f"the codes are none of {symbols} symbols")
        numbers = digits[:k]
    if numbers.max(initial=0) >= symbols:
        raise ValueError(f"the codes are none of {symbols} symbols")
    if symbols % 2:
        magnitude = np.where(numbers == 0, 0, (numbers + 1) // 2 + base)
        codes = np.where(numbers % 2 == 1, magnitude, -magnitude)
    else:
        magnitude = numbers // 2 + 1
        codes = np.where(numbers % 2 == 0, magnitude, -magnitude)
    return codes.astype(CODE_DTYPES[code_dtype(top)])
