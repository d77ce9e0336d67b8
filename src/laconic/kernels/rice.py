"""Rice coding of the gaps between ascending positions, in blocks that each have their number of low bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

from laconic.kernels._dispatch import dispatch
from laconic.kernels.reference.rice import (
    RICE_BLOCK,
    RICE_WIDTH,
    get_bits,
    get_rice_reference,
    put_bits,
    put_rice_reference,
)
from laconic.kernels.tables import Bytes, Integers

Words = npt.NDArray[np.uint64]


def put_rice(positions: Integers, d: int) -> tuple[Bytes, Bytes, Bytes]:
    """The gaps between positions, each block of ``RICE_BLOCK`` with its own number of low bits.

    A gap is what lies between a position and the one before, so 0 for neighbours; the first counts from 0.
    Of the numbers of low bits that make a block smallest the lowest is taken.

    Args:
        positions: int64 (k,), k >= 1.
        d: their limit.

    Returns:
        The numbers of low bits; the low bits of each gap; for each gap as many zeros as the rest says, then
        a one.

    Raises:
        ValueError: unless they ascend within [0, d).
    """

    def compiled(cpu: Any) -> tuple[Bytes, Bytes, Bytes]:
        if not cpu.ascend(positions, d):
            raise ValueError(f"the positions do not ascend within [0, {d})")
        gaps = np.empty_like(positions)
        cpu.gaps_between(positions, gaps)
        lows = np.zeros(-(-gaps.size // RICE_BLOCK), np.int64)
        low_bits, high_bits = cpu.choose_low(gaps, RICE_BLOCK, (1 << RICE_WIDTH) - 1, lows)
        words, high = _room(low_bits), _room(high_bits)
        cpu.put_rice(gaps, RICE_BLOCK, lows, words, high)
        return put_bits(lows, RICE_WIDTH), _store(words, low_bits), _store(high, high_bits)

    return dispatch("rice", compiled, lambda: put_rice_reference(positions, d))


def rice_lows(data: Bytes, k: int) -> tuple[Integers, int]:
    """The numbers of low bits of the blocks of k gaps, and the low bits of all gaps together."""
    lows = get_bits(data, RICE_WIDTH, -(-k // RICE_BLOCK))
    return lows, _low_bits(lows, k)


def get_rice(lows: Integers, low: Bytes, high: Bytes, d: int, k: int) -> Integers:
    """The k positions that :func:`put_rice` wrote.

    Args:
        lows: from :func:`rice_lows`.
        low: the low bits of the gaps.
        high: the zeros and ones.
        d: limit of the positions.
        k: how many there are.

    Raises:
        ValueError: for bytes that no positions in [0, d) make.
    """

    def compiled(cpu: Any) -> Integers:
        low_bits = _low_bits(lows, k)
        words, marks = _load(low, low_bits), _load(high, 8 * high.size)
        if (found := cpu.count_ones(marks)) != k:
            raise ValueError(f"{found} bits are ones, not {k}")
        if high[-1] == 0:
            raise ValueError("bytes of zeros follow the last gap")
        positions = np.empty(k, np.int64)
        if cpu.get_rice(marks, words, RICE_BLOCK, lows, d, positions) >= d:
            raise ValueError(f"the positions do not ascend within [0, {d})")
        return positions

    return dispatch("rice", compiled, lambda: get_rice_reference(lows, low, high, d, k))


def _low_bits(lows: Integers, k: int) -> int:
    return int(lows.sum()) * RICE_BLOCK - int(lows[-1]) * (-k % RICE_BLOCK)


def _room(bits: int) -> Words:
    # One word at least, because loops look at the first before they know whether they need it.
    return np.zeros(max(1, (bits + 63) // 64), np.uint64)


def _load(data: Bytes, bits: int) -> Words:
    """The bytes as words, once the bits after the first ``bits`` are known to be zeros."""
    if bits % 8 and data[-1] >> bits % 8:
        raise ValueError("the bits that fill the last byte are not zero")
    words = _room(8 * data.size)
    words.view(np.uint8)[: data.size] = data
    return words


def _store(words: Words, bits: int) -> Bytes:
    return words.view(np.uint8)[: (bits + 7) // 8]
