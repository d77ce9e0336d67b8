"""Philox-4x32-10, and the words, uniform numbers and permutations that are drawn with it.

The origin of draws is int64 (..., 4): seed, round, node and segment, from ``laconic.kernels.Stream.origin``.
"""

from enum import IntEnum
from typing import TypeVar

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
WEYL = (0x9E3779B9, 0xBB67AE85)
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
# Twelve rounds leave a bias of some percent on triples at d = 5 and 6; at twenty, a chi-squared test on 10^6
# permutations finds none.
_FEISTEL_ROUNDS = 20


class Purpose(IntEnum):
    """What a draw decides; two purposes never share a key."""

    SELECTION = 1
    ROUNDING = 2
    PERMUTATION = 3
    COIN = 4


_Word = TypeVar("_Word", int, Tensor)


def _multiply(a: int, b: _Word) -> tuple[_Word, _Word]:
    # The int64 product wraps modulo 2^64, which keeps all 64 bits of the unsigned product.
    product = b * a
    return (product >> 32) & MASK, product & MASK


def philox4x32(
    counter: tuple[_Word, _Word, _Word, _Word], key: tuple[_Word, _Word]
) -> tuple[_Word, _Word, _Word, _Word]:
    """Ten rounds of Philox-4x32 on words held in int64 tensors that broadcast together, or on Python's ints.

    Args:
        counter: four int64 tensors with values in [0, 2^32).
        key: two int64 tensors with values in [0, 2^32).

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2^32).

    Example:
        >>> zero = torch.zeros((), dtype=torch.int64)
        >>> [f"{int(w):08x}" for w in philox4x32((zero,) * 4, (zero,) * 2)]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = _multiply(_MULTIPLIERS[0], c0)
        hi1, lo1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def keys(origin: Tensor, purpose: Purpose, step: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of a purpose at its steps: two tensors of the origins' shape, then the steps'."""
    seed = _trailing(origin[..., 0], step.dim())
    zero = torch.zeros_like(step)
    k0, k1, _, _ = philox4x32((zero + int(purpose), step, zero, zero), (seed & MASK, (seed >> 32) & MASK))
    return k0, k1


def words_reference(origin: Tensor, count: int, purpose: Purpose) -> Tensor:
    """The definition of :meth:`laconic.kernels.Stream.words`."""
    block = torch.arange((count + 3) // 4, device=origin.device)
    k0, k1 = keys(origin, purpose, torch.zeros((), dtype=torch.int64, device=origin.device))
    # Ten rounds mix every word with all others, so the four results have one broadcast shape.
    words = torch.stack(philox4x32(_counter(block, origin, 1), (k0[..., None], k1[..., None])), dim=-1)
    return words.flatten(-2)[..., :count]


def uniform_reference(origin: Tensor, count: int, purpose: Purpose) -> Tensor:
    """The definition of :meth:`laconic.kernels.Stream.uniform`."""
    return words_reference(origin, count, purpose).to(torch.float64) * 2.0**-32


def permuted_reference(origin: Tensor, d: int, k: int) -> Tensor:
    """The definition of :meth:`laconic.kernels.Stream.permuted`."""
    rows = int(d**0.5)
    while rows * rows < d:
        rows += 1
    columns = -(-d // rows)
    table = _feistel_table(origin, rows, columns)
    position = torch.arange(k, device=origin.device).expand(*table.shape[:-2], k)
    position = _feistel(position, table, rows, columns)
    while bool((outside := position >= d).any()):
        position = torch.where(outside, _feistel(position, table, rows, columns), position)
    return position


def _trailing(words: Tensor, count: int) -> Tensor:
    return words[(..., *(None,) * count)]


def _counter(coordinate: Tensor, origin: Tensor, trailing: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, round_, node, segment = (_trailing(word, trailing) for word in origin.unbind(-1))
    return coordinate, segment, node, round_


def _feistel_table(origin: Tensor, rows: int, columns: int) -> Tensor:
    """What each step adds for each value of the other half: (..., steps, max(rows, columns))."""
    step = torch.arange(_FEISTEL_ROUNDS, device=origin.device)
    half = torch.arange(max(rows, columns), device=origin.device)
    k0, k1 = keys(origin, Purpose.PERMUTATION, step)
    high, low, _, _ = philox4x32(_counter(half, origin, 2), (k0[..., None], k1[..., None]))
    # 62 bits, so that the remainder by up to 2^16 favours no value by more than 2^-46.
    wide = ((high >> 1) << 31) | (low >> 1)
    return wide % torch.where(step % 2 == 0, rows, columns)[:, None]


def _feistel(position: Tensor, table: Tensor, rows: int, columns: int) -> Tensor:
    left, right = position // columns, position % columns
    for step in range(_FEISTEL_ROUNDS):
        if step % 2 == 0:
            left = (left + table[..., step, :].gather(-1, right)) % rows
        else:
            right = (right + table[..., step, :].gather(-1, left)) % columns
    return left * columns + right
