"""Exact selection of the largest magnitudes."""

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LONG = 1 << 14
"""Rows from this length on go through compiled loops; for shorter ones PyTorch is as fast."""
_SAMPLES = 1 << 15
_SIGMAS = 4.5


def top_k_positions(x: Tensor, k: int) -> Tensor:
    """Positions of the k numbers of largest magnitude in each row; ties go to the lowest position.

    Magnitudes are compared as bit patterns with the sign cleared, so 0 and -0 are equal and NaN
    stands above infinity.

    Args:
        x: (..., d), floating point.
        k: in [1, d].

    Returns:
        int64 (..., k), ascending along the last dimension.

    Example:
        >>> top_k_positions(torch.tensor([1.0, -3.0, 3.0, 2.0, -3.0]), 2)
        tensor([1, 2])
    """
    d = x.shape[-1]
    if d >= _LONG and k < d and x.dtype == torch.float32 and x.device.type == "cpu":
        rows = x.detach().contiguous().view(-1, d).view(torch.int32).numpy()
        return torch.from_numpy(np.stack([_top_k_of_row(row, k) for row in rows])).view(*x.shape[:-1], k)
    return top_k_reference(x, k)


def top_k_reference(x: Tensor, k: int) -> Tensor:
    """As :func:`top_k_positions`, in plain PyTorch on any device."""
    d = x.shape[-1]
    if k == d:
        return torch.arange(d, device=x.device).expand(x.shape)
    magnitude = _magnitude_bits(x)
    if k == 1:
        return magnitude.argmax(dim=-1, keepdim=True)  # documented to be the first of several maxima
    threshold = magnitude.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    above = magnitude > threshold
    tied = magnitude == threshold
    room = k - above.sum(dim=-1, keepdim=True)
    kept = above | (tied & (tied.cumsum(dim=-1) <= room))
    return kept.nonzero()[:, -1].reshape(*x.shape[:-1], k)


def _magnitude_bits(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return x.contiguous().view(torch.int64) & 0x7FFFFFFFFFFFFFFF
    if x.dtype == torch.float32:
        return x.contiguous().view(torch.int32) & 0x7FFFFFFF
    return x.contiguous().view(torch.int16) & 0x7FFF


@cache
def _loops() -> Any:
    # Imported here because numba takes longer to import than all the rest.
    from laconic.kernels._cpu import selection

    return selection


def _top_k_of_row(bits: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.int64]:
    """Top-k of one row, given as the bit patterns of float32 numbers."""
    loops, out = _loops(), np.empty(k, np.int64)
    bound = _sampled_bound(bits, k)
    # At the bound's rank about 4.5 sigmas more than k are expected; ties may bring more.
    positions = np.empty(min(bits.size, 4 * k + 4096) + 64, np.int64)
    count = loops.collect(bits, bound, positions) if bound is not None else -1
    if count >= k:
        magnitudes = np.empty(count, np.int32)
        loops.gather(bits, positions, count, magnitudes)
        kth, ties = loops.kth_magnitude(magnitudes, k)
        loops.keep(positions, magnitudes, count, kth, ties, out)
    else:
        kth, ties = loops.kth_magnitude(bits, k)
        loops.keep_of_all(bits, kth, ties, out)
    return out


def _sampled_bound(bits: npt.NDArray[np.int32], k: int) -> np.int32 | None:
    """A magnitude that at least k numbers most probably reach; None where most numbers are kept anyway."""
    stride = max(1, bits.size // _SAMPLES)
    share = k / bits.size
    magnitudes = np.empty(bits.size // stride, np.int32)
    size = magnitudes.size
    rank = math.ceil(size * share + _SIGMAS * math.sqrt(size * share * (1 - share)) + 1)
    if rank >= size or share > 0.25:
        return None
    _loops().sample(bits, stride, magnitudes)
    return np.int32(np.partition(magnitudes, size - rank)[size - rank])
