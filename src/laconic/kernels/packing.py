"""Numbers as bits and back, in plain NumPy: what the fast loops must equal.

Bits are numbered from the lowest of the first byte. A number of ``width`` bits has its lowest bit first.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


def put_bits(numbers: Numbers, width: int) -> Bytes:
    """Numbers in [0, 2^width) one after another, padded with zeros to whole bytes.

    Example:
        >>> put_bits(np.array([1, 2, 3]), 3)
        array([209,   0], dtype=uint8)
    """
    bits = (numbers[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def get_bits(data: Bytes, width: int, count: int) -> Numbers:
    """The first ``count`` numbers of ``width`` bits."""
    bits = np.unpackbits(data, count=width * count, bitorder="little").reshape(count, width)
    numbers: Numbers = (bits.astype(np.int64) << np.arange(width)).sum(axis=1)
    return numbers


def put_ones(places: Numbers, length: int) -> Bytes:
    """``length`` bits with ones at the places, padded with zeros to whole bytes."""
    bits = np.zeros(length, np.uint8)
    bits[places] = 1
    return np.packbits(bits, bitorder="little")


def get_ones(data: Bytes) -> Numbers:
    """The places of the ones, ascending."""
    return np.flatnonzero(np.unpackbits(data, bitorder="little")).astype(np.int64)


def put_groups(symbols: Numbers, base: int, shared: int) -> Bytes:
    """``shared`` symbols to a byte, the first one lowest: ``s_0 + s_1 base + s_2 base^2 + ...``"""
    groups = np.zeros(-(-symbols.size // shared) * shared, np.int64)
    groups[: symbols.size] = symbols
    numbers: Numbers = (groups.reshape(-1, shared) * base ** np.arange(shared)).sum(axis=1)
    return numbers.astype(np.uint8)


def get_groups(data: Bytes, base: int, shared: int, count: int) -> Numbers:
    """The first ``count`` symbols that stand ``shared`` to a byte."""
    groups = data.astype(np.int64)[:, None] // base ** np.arange(shared) % base
    return groups.reshape(-1)[:count]
