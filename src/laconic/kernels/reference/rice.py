"""Rice coding of the gaps between ascending positions."""

import numpy as np

from laconic.kernels.tables import Bytes, Integers

RICE_BLOCK = 64
"""Gaps that share a number of low bits."""
RICE_WIDTH = 5
"""Bits of a number of low bits."""


def put_bits(numbers: Integers, width: int) -> Bytes:
    """Numbers in [0, 2^width) one after another.

    Example:
        >>> put_bits(np.array([1, 2, 3]), 3)
        array([209,   0], dtype=uint8)
    """
    bits = (numbers[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def get_bits(data: Bytes, width: int, count: int) -> Integers:
    """The ``count`` numbers of ``width`` bits."""
    bits = np.unpackbits(data, bitorder="little")
    if bits[width * count :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    weighted = bits[: width * count].reshape(count, width).astype(np.int64) << np.arange(width)
    numbers: Integers = weighted.sum(axis=1)
    return numbers


def put_rice_reference(positions: Integers, d: int) -> tuple[Bytes, Bytes, Bytes]:
    """The definition of :func:`laconic.kernels.rice.put_rice`."""
    _require_ascending(positions, d)
    gaps = np.diff(positions, prepend=-1) - 1
    starts = range(0, gaps.size, RICE_BLOCK)
    lows = [_best_low(gaps[start : start + RICE_BLOCK]) for start in starts]
    each = np.repeat(lows, RICE_BLOCK)[: gaps.size].astype(np.int64)
    bits = np.concatenate(
        [(gap >> np.arange(low)) & 1 for gap, low in zip(gaps.tolist(), each.tolist(), strict=True)]
    )
    places = np.cumsum((gaps >> each) + 1) - 1
    marks = np.zeros(places[-1] + 1, np.uint8)
    marks[places] = 1
    return (
        put_bits(np.array(lows, np.int64), RICE_WIDTH),
        np.packbits(bits.astype(np.uint8), bitorder="little"),
        np.packbits(marks, bitorder="little"),
    )


def _best_low(gaps: Integers) -> int:
    return min(range(1 << RICE_WIDTH), key=lambda low: gaps.size * low + int((gaps >> low).sum()))


def get_rice_reference(lows: Integers, low: Bytes, high: Bytes, d: int, k: int) -> Integers:
    """The definition of :func:`laconic.kernels.rice.get_rice`."""
    each = np.repeat(lows, RICE_BLOCK)[:k]
    bits = np.unpackbits(low, bitorder="little")
    if bits[each.sum() :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    starts = np.cumsum(each) - each
    rest = [
        int(bits[s : s + n].astype(np.int64) @ (1 << np.arange(n))) for s, n in zip(starts, each, strict=True)
    ]
    ones = np.flatnonzero(np.unpackbits(high, bitorder="little")).astype(np.int64)
    if ones.size != k:
        raise ValueError(f"{ones.size} bits are ones, not {k}")
    if high[-1] == 0:
        raise ValueError("bytes of zeros follow the last gap")
    zeros = np.diff(ones, prepend=-1) - 1
    if bool((zeros > d >> each).any()):
        raise ValueError(f"the positions do not ascend within [0, {d})")
    positions: Integers = np.cumsum((zeros << each) + rest + 1) - 1
    _require_ascending(positions, d)
    return positions


def _require_ascending(positions: Integers, d: int) -> None:
    if positions.size and (positions[0] < 0 or positions[-1] >= d or bool((np.diff(positions) <= 0).any())):
        raise ValueError(f"the positions do not ascend within [0, {d})")
