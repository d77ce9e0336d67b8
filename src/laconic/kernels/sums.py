"""Canonical sums, means and norms of segments or rows, in the order that ``reference.sums`` fixes."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.magnitudes import largest_magnitude, largest_magnitudes
from laconic.kernels.reference.sums import (
    canonical_sum_reference,
    mean_magnitude_reference,
    norm_reference,
    shifted,
    square_root,
    squared_norm_reference,
)
from laconic.kernels.segmented import (
    Reading,
    SegmentedInput,
    block_bounds,
    dispatch_rows,
    in_shares,
    reading_of,
)
from laconic.kernels.tables import PIECE


def canonical_sum(x: Tensor) -> Tensor:
    """Sum over the last dimension in the canonical order.

    Args:
        x: (..., d), any real dtype.

    Returns:
        float64 (...).

    Example:
        >>> canonical_sum(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        tensor([ 6., 15.], dtype=torch.float64)
    """
    return dispatch_rows(
        "sums",
        x,
        lambda cpu: _row_sums(cpu, x, cpu.PLAIN),
        lambda: canonical_sum_reference(x),
        lambda gpu: gpu.canonical_sum(x),
    )


def squared_norm(x: Tensor) -> Tensor:
    """The canonical sum of squares, ``|x|^2``: (..., d) to float64 (...)."""
    return dispatch_rows(
        "sums",
        x,
        lambda cpu: _row_sums(cpu, x, cpu.SQUARES),
        lambda: squared_norm_reference(x),
        lambda gpu: gpu.squared_norm(x),
    )


def squared_norms(inp: SegmentedInput) -> Tensor:
    """As :func:`squared_norm` of every segment, in one call: float64 (S,)."""
    return dispatch(
        "sums",
        lambda cpu: _sums(cpu, inp.reading(), cpu.SQUARES),
        lambda: inp.concatenated(squared_norm_reference, torch.float64),
        gpu=lambda gpu: gpu.segment_sums(inp.x, inp.memory, inp.numels, "squares"),
        tensor=inp.like,
    )


def norm(x: Tensor, p: float) -> Tensor:
    """The p-norm over the last dimension: (..., d) to float64 (...); 1 <= p <= inf.

    Canonical for p = 1, 2 and infinity. Other p use the platform's power function, which is the same
    on machines with the same PyTorch build. float64 numbers are first divided by a power of two, so
    that squares neither overflow nor vanish.

    Args:
        x: (..., d), any real dtype.
        p: the norm.
    """

    def compiled(cpu: Any) -> Tensor:
        if p == 1:
            return _row_sums(cpu, x, cpu.SHARES)
        return _large_norms(cpu, reading_of(x), p, largest_magnitude(x).reshape(-1)).reshape(x.shape[:-1])

    if p not in (1, 2, math.inf):
        return norm_reference(x, p)
    return dispatch_rows("sums", x, compiled, lambda: norm_reference(x, p), lambda gpu: gpu.norm(x, p))


def norms(inp: SegmentedInput, p: float) -> Tensor:
    """As :func:`norm` of every segment: float64 (S,); one call where p is 1, 2 or infinity.

    Infinite or NaN where a number is.
    """

    def compiled(cpu: Any) -> Tensor:
        if p == 1:
            return _sums(cpu, inp.reading(), cpu.SHARES)
        return _large_norms(cpu, inp.reading(), p, largest_magnitudes(inp))

    def reference() -> Tensor:
        return inp.concatenated(lambda x: norm_reference(x, p), torch.float64)

    return dispatch("sums", compiled, reference, tensor=inp.like) if p in (1, 2, math.inf) else reference()


def _large_norms(cpu: Any, reading: Reading, p: float, largest: Tensor) -> Tensor:
    largest = largest.to(torch.float64)
    if math.isinf(p):
        return largest
    _, exponent = torch.frexp(largest)
    half = torch.div(-exponent, 2, rounding_mode="floor")
    one = torch.ones_like(largest)
    factors = torch.stack((torch.ldexp(one, half), torch.ldexp(one, -exponent - half)), dim=-1)
    return shifted(square_root(_sums(cpu, reading, cpu.SQUARES, factors)), exponent)


def mean_magnitude(x: Tensor) -> Tensor:
    """The canonical sum of the magnitudes divided by d, each divided first: (..., d) to float64 (...)."""
    return dispatch_rows(
        "sums",
        x,
        lambda cpu: _means(cpu, reading_of(x)).reshape(x.shape[:-1]),
        lambda: mean_magnitude_reference(x),
        lambda gpu: gpu.mean_magnitude(x),
    )


def mean_magnitudes(inp: SegmentedInput) -> Tensor:
    """As :func:`mean_magnitude` of every segment: float64 (S,).

    Infinite or NaN where a number is; where float64 numbers are the largest that there are, also by rounding.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> mean_magnitudes(SegmentedInput.of_kept(torch.tensor([1.0, -3.0, 5.0]), table))
        tensor([2., 5.], dtype=torch.float64)
    """
    return dispatch(
        "sums",
        lambda cpu: _means(cpu, inp.reading()),
        lambda: inp.concatenated(mean_magnitude_reference, torch.float64),
        gpu=lambda gpu: gpu.segment_sums(inp.x, inp.memory, inp.numels, "means"),
        tensor=inp.like,
    )


def _means(cpu: Any, reading: Reading) -> Tensor:
    numels = torch.from_numpy(np.diff(reading.bounds)).to(torch.float64)
    return _sums(cpu, reading, cpu.SHARES, torch.stack((numels, torch.ones_like(numels)), dim=-1))


def _row_sums(cpu: Any, x: Tensor, what: int) -> Tensor:
    return _sums(cpu, reading_of(x), what).reshape(x.shape[:-1])


def _sums(cpu: Any, reading: Reading, what: int, factors: Tensor | None = None) -> Tensor:
    """The sum of each segment, float64 (S,), of what is made of the numbers; factors float64 (S, 2)."""
    if factors is None:
        factors = torch.ones(reading.segments, 2, dtype=torch.float64, device="cpu")
    owned = block_bounds(reading.bounds, cpu.BLOCK)
    blocks, sums, own = np.empty(owned[-1]), np.empty(reading.segments), factors.numpy()

    def work(*share: int) -> None:
        rooms = (*reading.room(), np.empty(PIECE), np.empty(cpu.LANES))
        cpu.block_sums(reading, rooms, what, own, owned, *share, blocks)

    in_shares(reading.bounds, work, cpu.BLOCK)
    cpu.folded(blocks, owned, sums)
    return torch.from_numpy(sums)
