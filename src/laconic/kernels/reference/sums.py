"""Canonical sums, means and norms: one order of additions, whatever the number of threads or the device.

A sum that decides something or travels must be the same on every node. The order is fixed so that a
vector unit, a thread block and plain PyTorch can all follow it:

1. The vector is cut into blocks of 4096 numbers, 64 rows of 64 lanes; missing numbers are zeros.
2. Each lane adds its rows in ascending order, in float64, starting from 0.
3. The lanes are folded in halves: lane i takes lane i + 32, then i + 16, ... down to one number a block.
4. The blocks are folded in neighbours: (0, 1), (2, 3), ..., an odd one out passes on, until one is left.
"""

import math

import numpy as np
import torch
from torch import Tensor

LANES = 64
ROWS = 64


def canonical_sum_reference(x: Tensor) -> Tensor:
    """The definition of :func:`laconic.kernels.canonical_sum`."""
    x = x.to(torch.float64)
    d = x.shape[-1]
    rows = min(ROWS, max(1, -(-d // LANES)))
    blocks = max(1, -(-d // (rows * LANES)))
    padded = torch.nn.functional.pad(x, (0, blocks * rows * LANES - d))
    lanes = padded.reshape(*x.shape[:-1], blocks, rows, LANES)
    total = torch.zeros_like(lanes[..., 0, :])
    for row in range(rows):
        total = total + lanes[..., row, :]
    width = LANES
    while width > 1:
        width //= 2
        total = total[..., :width] + total[..., width:]
    total = total[..., 0]
    while total.shape[-1] > 1:
        total = torch.nn.functional.pad(total, (0, total.shape[-1] % 2))
        total = total[..., 0::2] + total[..., 1::2]
    return total[..., 0]


def squared_norm_reference(x: Tensor) -> Tensor:
    """The definition of :func:`laconic.kernels.squared_norm`."""
    return canonical_sum_reference(x.to(torch.float64) ** 2)


def mean_magnitude_reference(x: Tensor) -> Tensor:
    """The definition of :func:`laconic.kernels.mean_magnitude`."""
    return canonical_sum_reference(x.abs().to(torch.float64) / x.shape[-1])


def norm_reference(x: Tensor, p: float) -> Tensor:
    """The definition of :func:`laconic.kernels.norm`."""
    x = x.abs().to(torch.float64)
    if math.isinf(p):
        return x.amax(dim=-1)
    if p == 1:
        return canonical_sum_reference(x)
    _, exponent = torch.frexp(x.amax(dim=-1, keepdim=True))
    x = shifted(x, -exponent)
    if p == 2:
        total = square_root(canonical_sum_reference(x * x))
    else:
        total = canonical_sum_reference(x**p) ** (1.0 / p)
    return shifted(total, exponent[..., 0])


def canonical_prefix_sums(x: Tensor, place: Tensor | None = None) -> Tensor:
    """Inclusive prefix sums over the last dimension, by doubling: s_i <- s_i + s_(i - 2^j), j ascending.

    Args:
        x: (..., d), any real dtype.
        place: int64 (d,), where x is of several segments: each number's place in its own. Sums start anew in
            each segment; no number may then be -0.

    Returns:
        float64 (..., d).
    """
    x = x.to(torch.float64)
    length = x.shape[-1] if place is None else int(place.max()) + 1
    reach = 1
    while reach < length:
        before = x[..., :-reach]
        if place is not None:
            before = torch.where(place[reach:] >= reach, before, 0.0)
        x = torch.cat((x[..., :reach], x[..., reach:] + before), dim=-1)
        reach *= 2
    return x


def square_root(x: Tensor) -> Tensor:
    """The correctly rounded square root of float64 numbers."""
    # On CPUs torch.sqrt may go to a vector library that is not correctly rounded; NumPy's is.
    if x.device.type == "cpu":
        return torch.from_numpy(np.sqrt(x.numpy(), out=np.empty(x.shape)))
    return x.sqrt()


def shifted(x: Tensor, exponent: Tensor) -> Tensor:
    """``x * 2^exponent``, in two halves because 2^exponent alone may not be a float64 number."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(x, half), exponent - half)
