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

from laconic.kernels._dispatch import dispatch
from laconic.kernels.magnitudes import largest_magnitude, largest_magnitudes
from laconic.kernels.segmented import Reading, SegmentedInput, block_bounds, in_shares, reading_of
from laconic.kernels.steps import Step, dispatch_step

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

    def compiled(loops: Any) -> Tensor:
        return _row_sums(loops, step, loops.PLAIN)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.canonical_sum(x))

    return dispatch(
        "sums",
        compiled if step.compiled else None,
        lambda: canonical_sum_plainly(x),
        gpu=on_device if x.is_floating_point() else None,
        tensor=x,
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


def squared_norm(x: Tensor) -> Tensor:
    """The canonical sum of squares, ``|x|^2``: (..., d) to float64 (...)."""
    step = Step(x)

    def plain() -> Tensor:
        return canonical_sum_plainly(x.to(torch.float64) ** 2)

    def compiled(loops: Any) -> Tensor:
        return _row_sums(loops, step, loops.SQUARES)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.squared_norm(x))

    return dispatch(
        "sums",
        compiled if step.compiled else None,
        plain,
        gpu=on_device if x.is_floating_point() else None,
        tensor=x,
    )


def squared_norms(inp: SegmentedInput) -> Tensor:
    """As :func:`squared_norm` of every segment, in one call: float64 (S,)."""

    def plain() -> Tensor:
        found = [canonical_sum_plainly(step.numbers().to(torch.float64) ** 2) for step in inp.steps()]
        return torch.stack(found) if found else torch.empty(0, dtype=torch.float64)

    return dispatch("sums", lambda loops: _sums(loops, inp.reading(), loops.SQUARES), plain)


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

    def compiled(loops: Any) -> Tensor:
        return _norm(loops, step, p)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.norm(step.x, p, step.memory))

    canonical = p in (1, 2, math.inf)
    return dispatch(
        "sums",
        compiled if canonical and step.compiled else None,
        plain,
        gpu=on_device if canonical and step.on_device else None,
        tensor=step.x,
    )


def norms(inp: SegmentedInput, p: float) -> Tensor:
    """As :func:`norm` of every segment: float64 (S,); one call where p is 1, 2 or infinity.

    Infinite or NaN where a number is.
    """

    def plain() -> Tensor:
        found = [norm_plainly(step.numbers(), p) for step in inp.steps()]
        return torch.stack(found) if found else torch.empty(0, dtype=torch.float64)

    if p not in (1, 2, math.inf):
        return plain()

    def compiled(loops: Any) -> Tensor:
        if p == 1:
            return _sums(loops, inp.reading(), loops.SHARES)
        return _large_norms(loops, inp.reading(), p, largest_magnitudes(inp))

    return dispatch("sums", compiled, plain)


def _norm(loops: Any, step: Step, p: float) -> Tensor:
    if p == 1:
        return _row_sums(loops, step, loops.SHARES)
    largest = largest_magnitude(step).reshape(-1)
    return _large_norms(loops, reading_of(step), p, largest).reshape(step.batch)


def _large_norms(loops: Any, reading: Reading, p: float, largest: Tensor) -> Tensor:
    largest = largest.to(torch.float64)
    if math.isinf(p):
        return largest
    _, exponent = torch.frexp(largest)
    half = torch.div(-exponent, 2, rounding_mode="floor")
    one = torch.ones_like(largest)
    factors = torch.stack((torch.ldexp(one, half), torch.ldexp(one, -exponent - half)), dim=-1)
    return shifted(_square_root(_sums(loops, reading, loops.SQUARES, factors)), exponent)


def mean_magnitude(step: Step) -> Tensor:
    """The canonical sum of the magnitudes divided by d, each divided first: float64 (...)."""

    def compiled(loops: Any) -> Tensor:
        return _means(loops, reading_of(step)).reshape(step.batch)

    def plain() -> Tensor:
        return _mean_plainly(step)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.mean_magnitude(step.x, step.memory))

    return dispatch_step("sums", step, compiled, plain, on_device)


def mean_magnitudes(inp: SegmentedInput) -> Tensor:
    """As :func:`mean_magnitude` of every segment: float64 (S,).

    Infinite or NaN where a number is; where float64 numbers are the largest that there are, also by rounding.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> mean_magnitudes(SegmentedInput.of_kept(torch.tensor([1.0, -3.0, 5.0]), table))
        tensor([2., 5.], dtype=torch.float64)
    """

    def plain() -> Tensor:
        found = [_mean_plainly(step) for step in inp.steps()]
        return torch.stack(found) if found else torch.empty(0, dtype=torch.float64)

    return dispatch("sums", lambda loops: _means(loops, inp.reading()), plain)


def _mean_plainly(step: Step) -> Tensor:
    return canonical_sum_plainly(step.numbers().abs().to(torch.float64) / step.d)


def _means(loops: Any, reading: Reading) -> Tensor:
    numels = torch.from_numpy(np.diff(reading.bounds)).to(torch.float64)
    return _sums(loops, reading, loops.SHARES, torch.stack((numels, torch.ones_like(numels)), dim=-1))


def _row_sums(loops: Any, step: Step, what: int) -> Tensor:
    return _sums(loops, reading_of(step), what).reshape(step.batch)


def _sums(loops: Any, reading: Reading, what: int, factors: Tensor | None = None) -> Tensor:
    """The sum of each segment, float64 (S,), of what is made of the numbers; factors float64 (S, 2)."""
    if factors is None:
        factors = torch.ones(reading.segments, 2, dtype=torch.float64)
    owned = block_bounds(reading.bounds, loops.BLOCK)
    blocks, sums, own = np.empty(owned[-1]), np.empty(reading.segments), factors.numpy()

    def work(*share: int) -> None:
        loops.block_sums(reading, what, own, owned, *share, blocks)

    in_shares(reading.bounds, work, loops.BLOCK)
    loops.folded(blocks, owned, sums)
    return torch.from_numpy(sums)


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
