"""Canonical sums: one order of additions, whatever the number of threads or the device.

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


def canonical_prefix_sums(x: Tensor) -> Tensor:
    """Inclusive prefix sums over the last dimension, by doubling: s_i <- s_i + s_(i - 2^j), j ascending.

    Args:
        x: (..., d), any real dtype.

    Returns:
        float64 (..., d).
    """
    x = x.to(torch.float64)
    reach = 1
    while reach < x.shape[-1]:
        x = torch.cat((x[..., :reach], x[..., reach:] + x[..., :-reach]), dim=-1)
        reach *= 2
    return x


def squared_norm(x: Tensor) -> Tensor:
    """The canonical sum of squares, ``|x|^2``: (..., d) to float64 (...)."""
    return canonical_sum(x.to(torch.float64) ** 2)


def norm(x: Tensor, p: float) -> Tensor:
    """The p-norm over the last dimension: (..., d) to float64 (...); 1 <= p <= inf.

    Canonical for p = 1, 2 and infinity. Other p use the platform's power function, which is the same
    on machines with the same PyTorch build. float64 numbers are first divided by a power of two, so
    that squares neither overflow nor vanish.
    """
    x = x.abs().to(torch.float64)
    if math.isinf(p):
        return x.amax(dim=-1)
    if p == 1:
        return canonical_sum(x)
    _, exponent = torch.frexp(x.amax(dim=-1, keepdim=True))
    x = shifted(x, -exponent)
    total = _square_root(canonical_sum(x * x)) if p == 2 else canonical_sum(x**p) ** (1.0 / p)
    return shifted(total, exponent[..., 0])


def _square_root(x: Tensor) -> Tensor:
    # On CPUs torch.sqrt may go to a vector library that is not correctly rounded; NumPy's is.
    if x.device.type == "cpu":
        return torch.from_numpy(np.sqrt(x.numpy(), out=np.empty(x.shape)))
    return x.sqrt()


def shifted(x: Tensor, exponent: Tensor) -> Tensor:
    """``x * 2^exponent``, in two halves because 2^exponent alone may not be a float64 number."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(x, half), exponent - half)
