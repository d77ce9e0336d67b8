"""CRC-32 in parts: its table, and how a state moves on by zero bytes."""

import zlib
from functools import lru_cache

_ALL = 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xEDB88320 if byte & 1 else 0)
    return byte


TABLE = tuple(map(_entry, range(256)))
"""By the lowest byte of a state: what is XORed to the rest of it, shifted by a byte."""


@lru_cache(maxsize=256)
def zeros_operator(count: int) -> tuple[int, ...]:
    """The images of a state's 32 bits under so many zero bytes."""
    if count == 0:
        return tuple(1 << bit for bit in range(32))
    half = zeros_operator(count // 2)
    twice = tuple(_apply(half, state) for state in half)
    return tuple(TABLE[state & 255] ^ state >> 8 for state in twice) if count % 2 else twice


def _apply(operator: tuple[int, ...], state: int) -> int:
    found = 0
    for bit, image in enumerate(operator):
        if state >> bit & 1:
            found ^= image
    return found


def checksum_before(head: bytes, length: int) -> int:
    """The CRC-32 of a head and ``length`` bytes behind it, less (XOR) these bytes' state from 0.

    Example:
        >>> checksum_before(b"head", 3) == zlib.crc32(b"head" + bytes(3))
        True
    """
    return _apply(zeros_operator(length), zlib.crc32(head) ^ _ALL) ^ _ALL
