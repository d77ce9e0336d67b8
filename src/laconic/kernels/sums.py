"""Canonical sums: one order of additions, whatever the number of threads or the device.

A sum that decides something or travels must be the same on every node. The order is fixed so that a
vector unit, a thread block and plain PyTorch can all follow it:

1. The vector is cut into blocks of 4096 numbers, 64 rows of 64 lanes; missing numbers are zeros.
2. Each lane adds its rows in ascending order, in float64, starting from 0.
3. The lanes are folded in halves: lane i takes lane i + 32, then i + 16, ... down to one number a block.
4. The blocks are folded in neighbours: (0, 1), (2, 3), ..., an odd one out passes on, until one is left.
"""

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._choice import compiled_or_plain, on_gpu
from laconic.kernels._cpu.threads import in_threads
from laconic.kernels.rounding import largest_magnitude
from laconic.kernels.steps import Row, Step, cuts

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
    step = Step(x)
    if x.is_floating_point() and (gpu := on_gpu(x)) is not None:
        return cast(Tensor, gpu.canonical_sum(x))
    if not step.compiled:
        return canonical_sum_plainly(x)
    return compiled_or_plain(
        "sums", lambda loops: _sums(loops, step, loops.PLAIN), lambda: canonical_sum_plainly(x)
    )


def canonical_sum_plainly(x: Tensor) -> Tensor:
    """The definition of :func:`canonical_sum`."""
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
    step = Step(x)
    if x.is_floating_point() and (gpu := on_gpu(x)) is not None:
        return cast(Tensor, gpu.squared_norm(x))

    def plain() -> Tensor:
        return canonical_sum_plainly(x.to(torch.float64) ** 2)

    def compiled(loops: Any) -> Tensor:
        return _sums(loops, step, loops.SQUARES)

    return compiled_or_plain("sums", compiled, plain) if step.compiled else plain()


def norm(x: Tensor | Step, p: float) -> Tensor:
    """The p-norm over the last dimension: (..., d) to float64 (...); 1 <= p <= inf.

    Canonical for p = 1, 2 and infinity. Other p use the platform's power function, which is the same
    on machines with the same PyTorch build. float64 numbers are first divided by a power of two, so
    that squares neither overflow nor vanish.

    Args:
        x: (..., d), any real dtype; or a step, whose numbers then are not formed.
        p: the norm.
    """
    step = x if isinstance(x, Step) else Step(x)

    def plain() -> Tensor:
        return norm_plainly(x.numbers() if isinstance(x, Step) else x, p)

    if p in (1, 2, math.inf) and (gpu := on_gpu(step.x)) is not None and gpu.takes(step):
        return cast(Tensor, gpu.norm(step.x, p, step.memory))
    if not step.compiled or p not in (1, 2, math.inf):
        return plain()
    return compiled_or_plain("sums", lambda loops: _norm(loops, step, p), plain)


def _norm(loops: Any, step: Step, p: float) -> Tensor:
    if p == 1:
        return _sums(loops, step, loops.MAGNITUDES)
    largest = largest_magnitude(step)[..., 0].to(torch.float64)
    if math.isinf(p):
        return largest
    _, exponent = torch.frexp(largest)
    half = torch.div(-exponent, 2, rounding_mode="floor")
    one = torch.ones_like(largest)
    factors = torch.stack((torch.ldexp(one, half), torch.ldexp(one, -exponent - half)), dim=-1)
    return shifted(_square_root(_sums(loops, step, loops.SQUARES, factors)), exponent)


def mean_magnitude(step: Step) -> Tensor:
    """The canonical sum of the magnitudes divided by d, each divided first: float64 (...)."""
    if (gpu := on_gpu(step.x)) is not None and gpu.takes(step):
        return cast(Tensor, gpu.mean_magnitude(step.x, step.memory))

    def plain() -> Tensor:
        return canonical_sum_plainly(step.numbers().abs().to(torch.float64) / step.d)

    def compiled(loops: Any) -> Tensor:
        factors = torch.tensor([float(step.d), 1.0], dtype=torch.float64).expand(*step.batch, 2)
        return _sums(loops, step, loops.SHARES, factors)

    return compiled_or_plain("sums", compiled, plain) if step.compiled else plain()


def _sums(loops: Any, step: Step, what: int, factors: Tensor | None = None) -> Tensor:
    """Compiled sums of the rows of what is made of the numbers; factors float64 (..., 2)."""
    if factors is None:
        factors = torch.ones(*step.batch, 2, dtype=torch.float64)
    sums = [
        _sum(loops, row, what, *pair)
        for row, pair in zip(step.rows(), factors.reshape(-1, 2).tolist(), strict=True)
    ]
    return torch.tensor(sums, dtype=torch.float64).reshape(step.batch)


def _sum(loops: Any, row: Row, what: int, a: float, b: float) -> float:
    blocks = np.empty(-(-row.size // loops.BLOCK))
    starts = [cut // loops.BLOCK for cut in cuts(row.size)]
    ends = [*starts[1:], len(blocks)]

    def work(share: int) -> None:
        loops.block_sums(row, what, a, b, starts[share], blocks[starts[share] : ends[share]])

    in_threads(work, len(starts))
    return float(loops.folded(blocks))


def norm_plainly(x: Tensor, p: float) -> Tensor:
    """The definition of :func:`norm`."""
    x = x.abs().to(torch.float64)
    if math.isinf(p):
        return x.amax(dim=-1)
    if p == 1:
        return canonical_sum_plainly(x)
    _, exponent = torch.frexp(x.amax(dim=-1, keepdim=True))
    x = shifted(x, -exponent)
    total = _square_root(canonical_sum_plainly(x * x)) if p == 2 else canonical_sum_plainly(x**p) ** (1.0 / p)
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
