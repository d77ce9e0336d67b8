"""Counter-based randomness: every draw is a pure function of where it is used.

Philox-4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
maps a 128-bit counter and a 64-bit key to four 32-bit words. The counter says where the draw is used
(coordinate, segment, node, round), the key says by whom (seed and purpose). Nothing is stateful, so
resuming, batching, threads and devices cannot change a draw.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch

SHARED = 0xFFFFFFFF
"""The node number of draws that all nodes make alike."""

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
# Twelve rounds leave a bias of some percent on triples at d = 5 and 6; at twenty, a chi-squared test on 10^6
# permutations finds none.
_FEISTEL_ROUNDS = 20
_LONG = 1024
"""Draws from this length on go through compiled loops; for many shorter ones PyTorch is as fast."""


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
    return (product >> 32) & _MASK, product & _MASK


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
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _signed(seed: int | Tensor) -> int | Tensor:
    """The seed's 64 bits as int64 holds them."""
    return seed if isinstance(seed, Tensor) else (seed + (1 << 63)) % (1 << 64) - (1 << 63)


@dataclass(frozen=True)
class Stream:
    """The draws of one place: a seed, a round, a node (or :data:`SHARED`) and a segment.

    ``seed`` and ``node`` may be integer tensors that broadcast to the leading dimensions of what is
    compressed: a batch of simulated nodes then draws exactly what each node would draw alone.

    Args:
        seed: 64 bits; negative numbers are taken modulo 2^64.
        round: the round, in [0, 2^32).
        node: the node, in [0, 2^32).
        segment: the segment's index in its layout, in [0, 2^32).

    Example:
        >>> one = Stream(seed=7, round=3, node=2).uniform(5, Purpose.ROUNDING)
        >>> batch = Stream(seed=7, round=3, node=torch.arange(4)).uniform(5, Purpose.ROUNDING)
        >>> batch.shape, torch.equal(batch[2], one)
        (torch.Size([4, 5]), True)
    """

    seed: int | Tensor
    round: int = 0
    node: int | Tensor = 0
    segment: int = 0

    def at(self, segment: int) -> "Stream":
        """The same place in another segment."""
        return replace(self, segment=segment)

    def shared(self) -> "Stream":
        """The same place for all nodes alike."""
        return replace(self, node=SHARED)

    def origin(self, device: torch.device | str = "cpu") -> Tensor:
        """Seed, round, node and segment: int64 (..., 4), from which the stream can be made again."""
        words = (_signed(self.seed), self.round, self.node, self.segment)
        tensors = (torch.as_tensor(word, dtype=torch.int64, device=device) for word in words)
        return torch.stack(torch.broadcast_tensors(*tensors), dim=-1)  # type: ignore[no-untyped-call]

    def _key(self, purpose: Purpose, step: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The keys of a purpose at its steps: two tensors of the seed's shape, then the steps'."""
        seed = self.seed
        if not isinstance(seed, Tensor):
            wrapped = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
            seed = torch.tensor(wrapped, dtype=torch.int64)
        seed = seed.to(device)[(..., *(None,) * step.dim())]
        zero = torch.zeros((), dtype=torch.int64, device=device)
        counter = (torch.tensor(int(purpose), device=device), step, zero, zero)
        k0, k1, _, _ = philox4x32(counter, (seed & _MASK, (seed >> 32) & _MASK))
        return k0, k1

    def _place(self, device: torch.device, trailing: int) -> tuple[Tensor, Tensor, Tensor]:
        """Segment, node and round as counters, the node with so many trailing dimensions of size 1."""
        node = self.node if isinstance(self.node, Tensor) else torch.tensor(self.node)
        node = node.to(device)[(..., *(None,) * trailing)]
        return torch.tensor(self.segment, device=device), node, torch.tensor(self.round, device=device)

    def words(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """One 32-bit word for each of ``count`` coordinates.

        Coordinate c takes word c mod 4 of the block at counter c // 4.

        Returns:
            int64 (..., count) with values in [0, 2^32); leading dimensions are those of seed and node.
        """

        def compiled(loops: Any) -> Tensor:
            return self._filled(loops, count, purpose, np.int64(1))

        def on_device(gpu: Any) -> Tensor:
            return cast(Tensor, gpu.words(self, count, purpose, device))

        return dispatch(
            "philox",
            compiled if _is_long(count, device) else None,
            lambda: self.words_plainly(count, purpose, device),
            gpu=on_device,
            tensor=torch.empty(0, device=device),
        )

    def words_plainly(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """The definition of :meth:`words`."""
        block = torch.arange((count + 3) // 4, device=device)
        k0, k1 = self._key(purpose, torch.zeros((), dtype=torch.int64, device=block.device), block.device)
        counter = (block, *self._place(block.device, 1))
        # Ten rounds mix every word with all others, so the four results have one broadcast shape.
        words = torch.stack(philox4x32(counter, (k0[..., None], k1[..., None])), dim=-1)
        return words.flatten(-2)[..., :count]

    def uniform(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """``count`` numbers w / 2^32, w the words: float64 (..., count) in [0, 1)."""

        def compiled(loops: Any) -> Tensor:
            return self._filled(loops, count, purpose, np.float64(2.0**-32))

        return dispatch(
            "philox",
            compiled if _is_long(count, device) else None,
            lambda: self.uniform_plainly(count, purpose, device),
        )

    def uniform_plainly(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """The definition of :meth:`uniform`."""
        return self.words_plainly(count, purpose, device).to(torch.float64) * 2.0**-32

    def sources(self, purpose: Purpose, batch: torch.Size) -> npt.NDArray[np.uint64]:
        """What compiled loops draw from, for each of the rows of a batch: uint64 (rows, 23).

        The two words of the key of each of the ten rounds; then segment, node and round.
        """
        if not isinstance(self.seed, Tensor) and not isinstance(self.node, Tensor):
            # In Python's integers: the many small tensors below take longer than a short row.
            k0, k1, _, _ = philox4x32((int(purpose), 0, 0, 0), (self.seed & _MASK, self.seed >> 32 & _MASK))
            words = [
                (k + r * weyl) & _MASK for r in range(10) for k, weyl in zip((k0, k1), _WEYL, strict=True)
            ]
            source = np.array([*words, self.segment, self.node, self.round], np.uint64)
            return np.broadcast_to(source, (batch.numel(), 23))
        steps = torch.zeros((), dtype=torch.int64)
        key = torch.stack(self._key(purpose, steps, steps.device), dim=-1)
        weyl = torch.arange(10)[:, None] * torch.tensor(_WEYL)
        keys = ((key[..., None, :] + weyl) & _MASK).flatten(-2).expand(*batch, 20)
        places = self.origin()[..., [3, 2, 1]].expand(*batch, 3)
        return torch.cat((keys, places), dim=-1).reshape(-1, 23).numpy().view(np.uint64)

    def _filled(self, loops: Any, count: int, purpose: Purpose, factor: np.int64 | np.float64) -> Tensor:
        shapes = [t.shape for t in (self.seed, self.node) if isinstance(t, Tensor)]
        batch = torch.Size(np.broadcast_shapes(*shapes))
        out = np.empty((*batch, count), factor.dtype)
        for source, row in zip(self.sources(purpose, batch), out.reshape(-1, count), strict=True):
            loops.fill(source, factor, row)
        return torch.from_numpy(out)

    def coin(self, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """One number of 53 random bits a row: float64 (...) in [0, 1)."""
        words = self.words(2, purpose, device)
        return ((words[..., 0] << 21) | (words[..., 1] >> 11)).to(torch.float64) * 2.0**-53

    def coins(self, numbers: Tensor, purpose: Purpose) -> Tensor:
        """As :meth:`coin`, of each segment of some numbers int64 (S,): float64 (..., S)."""
        zero = torch.zeros((), dtype=torch.int64, device=numbers.device)
        k0, k1 = self._key(purpose, zero, numbers.device)
        _, node, round_ = self._place(numbers.device, 1)
        high, low, _, _ = philox4x32((zero, numbers, node, round_), (k0[..., None], k1[..., None]))
        return ((high << 21) | (low >> 11)).to(torch.float64) * 2.0**-53

    def permuted(self, d: int, k: int, device: torch.device | str = "cpu") -> Tensor:
        """The first k images of a keyed permutation of [0, d).

        The permutation is a Feistel network on pairs (l, r) with l < ceil(sqrt d), that adds a keyed
        function of one half to the other; images outside [0, d) walk on until they fall inside. So
        any image is known without the others; the functions are tables of O(sqrt d) numbers.

        Returns:
            int64 (..., k), distinct along the last dimension, in the permutation's order.
        """
        rows = int(d**0.5)
        while rows * rows < d:
            rows += 1
        columns = -(-d // rows)
        table = self._feistel_table(rows, columns, device)
        position = torch.arange(k, device=device).expand(*table.shape[:-2], k)
        position = _feistel(position, table, rows, columns)
        while bool((outside := position >= d).any()):
            position = torch.where(outside, _feistel(position, table, rows, columns), position)
        return position

    def _feistel_table(self, rows: int, columns: int, device: torch.device | str) -> Tensor:
        """What each step adds for each value of the other half: (..., steps, max(rows, columns))."""
        step = torch.arange(_FEISTEL_ROUNDS, device=device)
        half = torch.arange(max(rows, columns), device=device)
        k0, k1 = self._key(Purpose.PERMUTATION, step, half.device)
        counter = (half, *self._place(half.device, 2))
        high, low, _, _ = philox4x32(counter, (k0[..., None], k1[..., None]))
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


def _is_long(count: int, device: torch.device | str) -> bool:
    return count >= _LONG and torch.device(device).type == "cpu"
