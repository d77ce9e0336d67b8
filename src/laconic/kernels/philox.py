"""Counter-based randomness: every draw is a pure function of where it is used.

Philox-4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
maps a 128-bit counter and a 64-bit key to four 32-bit words. The counter says where the draw is used
(coordinate, segment, node, round), the key says by whom (seed and purpose). Nothing is stateful, so
resuming, batching, threads and devices cannot change a draw.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.reference.philox import (
    MASK,
    WEYL,
    Purpose,
    keys,
    permuted_reference,
    philox4x32,
    uniform_reference,
    words_reference,
)

__all__ = ["SHARED", "Purpose", "Stream"]

SHARED = 0xFFFFFFFF
"""The node number of draws that all nodes make alike."""

_LONG = 1024
"""Draws from this length on go through compiled loops; for many shorter ones PyTorch is as fast."""


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

    def words(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """One 32-bit word for each of ``count`` coordinates.

        Coordinate c takes word c mod 4 of the block at counter c // 4.

        Returns:
            int64 (..., count) with values in [0, 2^32); leading dimensions are those of seed and node.
        """
        fits = _is_long(count, device)
        return dispatch(
            "philox",
            (lambda cpu: self._filled(cpu, count, purpose, np.int64(1))) if fits else None,
            lambda: words_reference(self.origin(device), count, purpose),
            gpu=lambda gpu: gpu.words(self, count, purpose, device),
            tensor=torch.empty(0, device=device),
        )

    def uniform(self, count: int, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """``count`` numbers w / 2^32, w the words: float64 (..., count) in [0, 1)."""
        fits = _is_long(count, device)
        return dispatch(
            "philox",
            (lambda cpu: self._filled(cpu, count, purpose, np.float64(2.0**-32))) if fits else None,
            lambda: uniform_reference(self.origin(device), count, purpose),
        )

    def sources(self, purpose: Purpose, batch: torch.Size) -> npt.NDArray[np.uint64]:
        """What compiled loops draw from, for each of the rows of a batch: uint64 (rows, 23).

        The two words of the key of each of the ten rounds; then segment, node and round.
        """
        if not isinstance(self.seed, Tensor) and not isinstance(self.node, Tensor):
            # In Python's integers: the many small tensors below take longer than a short row.
            k0, k1, _, _ = philox4x32((int(purpose), 0, 0, 0), (self.seed & MASK, self.seed >> 32 & MASK))
            words = [(k + r * weyl) & MASK for r in range(10) for k, weyl in zip((k0, k1), WEYL, strict=True)]
            source = np.array([*words, self.segment, self.node, self.round], np.uint64)
            return np.broadcast_to(source, (batch.numel(), 23))
        origin = self.origin()
        key = torch.stack(keys(origin, purpose, torch.zeros((), dtype=torch.int64, device="cpu")), dim=-1)
        weyl = torch.arange(10, device="cpu")[:, None] * torch.tensor(WEYL, device="cpu")
        round_keys = ((key[..., None, :] + weyl) & MASK).flatten(-2).expand(*batch, 20)
        places = origin[..., [3, 2, 1]].expand(*batch, 3)
        return torch.cat((round_keys, places), dim=-1).reshape(-1, 23).numpy().view(np.uint64)

    def _filled(self, cpu: Any, count: int, purpose: Purpose, factor: np.int64 | np.float64) -> Tensor:
        shapes = [t.shape for t in (self.seed, self.node) if isinstance(t, Tensor)]
        batch = torch.Size(np.broadcast_shapes(*shapes))
        out = np.empty((*batch, count), factor.dtype)
        for source, row in zip(self.sources(purpose, batch), out.reshape(-1, count), strict=True):
            cpu.fill(source, factor, np.empty(cpu.PIECE, np.uint32), row)
        return torch.from_numpy(out)

    def coin(self, purpose: Purpose, device: torch.device | str = "cpu") -> Tensor:
        """One number of 53 random bits a row: float64 (...) in [0, 1)."""
        words = self.words(2, purpose, device)
        return ((words[..., 0] << 21) | (words[..., 1] >> 11)).to(torch.float64) * 2.0**-53

    def coins(self, numbers: Tensor, purpose: Purpose) -> Tensor:
        """As :meth:`coin`, of each segment of some numbers int64 (S,): float64 (..., S)."""
        origin = self.origin(numbers.device).unsqueeze(-2)
        origins = origin.expand(*origin.shape[:-2], len(numbers), 4).clone()
        origins[..., 3] = numbers
        words = words_reference(origins, 2, purpose)
        return ((words[..., 0] << 21) | (words[..., 1] >> 11)).to(torch.float64) * 2.0**-53

    def permuted(self, d: int, k: int, device: torch.device | str = "cpu") -> Tensor:
        """The first k images of a keyed permutation of [0, d).

        The permutation is a Feistel network on pairs (l, r) with l < ceil(sqrt d), that adds a keyed
        function of one half to the other; images outside [0, d) walk on until they fall inside. So
        any image is known without the others; the functions are tables of O(sqrt d) numbers.

        Returns:
            int64 (..., k), distinct along the last dimension, in the permutation's order.
        """
        return permuted_reference(self.origin(device), d, k)


def _is_long(count: int, device: torch.device | str) -> bool:
    return count >= _LONG and torch.device(device).type == "cpu"
