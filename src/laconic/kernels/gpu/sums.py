"""Canonical sums and norms on the device, in the order that ``laconic.kernels.reference.sums`` fixes.

A program adds the 64 rows of its blocks one after another in float64, then folds the 64 lanes in halves; a
second kernel folds the blocks in neighbours. A fold adds two numbers at a time, and two numbers have one
sum, so no order is left open. Missing numbers are zeros, which change no sum that began at 0.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import math

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import as_rows, launch
from laconic.kernels.gpu._numbers import magnitude, widened
from laconic.kernels.reference.sums import LANES, ROWS, square_root
from laconic.kernels.tables import accumulation_dtype

_TOGETHER = 16
FAN = 1024
"""Neighbours that a program folds."""
_PLAIN, _MAGNITUDES, _SQUARES = 0, 1, 2


def canonical_sum(x):
    """As ``laconic.kernels.canonical_sum``: (..., d) to float64 (...)."""
    return _total(x, _PLAIN)


def squared_norm(x):
    """As ``laconic.kernels.squared_norm``, likewise."""
    return _total(x, _SQUARES)


def mean_magnitude(x):
    """The canonical sum of ``fl(|x_i| / d)``, the scale of scaled signs: (..., d) to float64 (...)."""
    divisor = torch.full((math.prod(x.shape[:-1]),), x.shape[-1], dtype=torch.float64, device=x.device)
    return _total(x, _MAGNITUDES, (divisor, divisor), divide=True)


def norm(x, p):
    """As ``laconic.kernels.norm``, likewise; for p = 1, 2 and infinity.

    Raises:
        ValueError: for any other p.
    """
    if p == 1:
        return _total(x, _MAGNITUDES)
    if p not in (2, math.inf):
        raise ValueError(f"norms 1, 2 and infinity run on the device, not {p}")
    most = largest(x).to(torch.float64)
    if p != 2:
        return most
    _, exponent = torch.frexp(most)
    total = square_root(_total(x, _SQUARES, [factor.flatten() for factor in _powers(-exponent)]))
    first, second = _powers(exponent)
    return total * first * second


def _powers(exponent):
    """2^exponent as two factors, from their bits: a power function of the device might miss the last one."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return [((e.to(torch.int64) + 1023) << 52).view(torch.float64) for e in (half, exponent - half)]


def largest(x):
    """The largest magnitude of each row: (..., d) to (...), float64 for float64 numbers, else float32.

    A maximum does not depend on the order, so programs may add theirs by atomics. NaN counts as largest.
    """
    rows, dtype = as_rows(x), accumulation_dtype(x.dtype)
    bits = torch.zeros(
        len(rows), dtype=torch.int64 if dtype == torch.float64 else torch.int32, device=x.device
    )
    d = rows.shape[1]
    tiles = triton.cdiv(d, 4096)
    launch(_largest, len(rows) * tiles, rows, bits, d, tiles, TILE=4096)
    return bits.view(dtype).view(x.shape[:-1])


def _total(x, kind, factors=None, divide=False):
    rows = as_rows(x)
    n, d = rows.shape
    blocks = triton.cdiv(d, LANES * ROWS)
    programs = triton.cdiv(blocks, _TOGETHER)
    sums = torch.empty(n, blocks, dtype=torch.float64, device=x.device)
    first, second = factors or (sums, sums)
    launch(
        _blocks, n * programs, rows, sums, first, second, d, blocks, programs,
        KIND=kind, SCALED=factors is not None, DIVIDE=divide, TOGETHER=_TOGETHER, ROWS=ROWS, LANES=LANES,
    )  # fmt: skip
    return _folded(sums).view(x.shape[:-1])


def _folded(sums):
    """The sums of rows of block sums, (n, blocks) to (n,), neighbour by neighbour."""
    while (blocks := sums.shape[1]) > 1:
        parts = triton.cdiv(blocks, FAN)
        folded = torch.empty(len(sums), parts, dtype=torch.float64, device=sums.device)
        launch(_fold, len(sums) * parts, sums, folded, blocks, parts, FAN=FAN)
        sums = folded
    return sums[:, 0]


@triton.jit
def fold_lanes(lanes, TOGETHER: tl.constexpr):
    """The sums of 64 lanes, (TOGETHER, 64) to (TOGETHER,), folded in halves."""
    lanes = tl.sum(tl.reshape(lanes, (TOGETHER, 2, 32)), axis=1)
    lanes = tl.sum(tl.reshape(lanes, (TOGETHER, 2, 16)), axis=1)
    lanes = tl.sum(tl.reshape(lanes, (TOGETHER, 2, 8)), axis=1)
    lanes = tl.sum(tl.reshape(lanes, (TOGETHER, 2, 4)), axis=1)
    lanes = tl.sum(tl.reshape(lanes, (TOGETHER, 2, 2)), axis=1)
    return tl.sum(lanes, axis=1)


@triton.jit
def fold_neighbours(total, FAN: tl.constexpr):
    """The sum of FAN numbers, neighbour by neighbour."""
    tl.static_assert(FAN == 1024)
    total = tl.sum(tl.reshape(total, (512, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (256, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (128, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (64, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (32, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (16, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (8, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (4, 2)), axis=1)
    total = tl.sum(tl.reshape(total, (2, 2)), axis=1)
    return tl.sum(total, axis=0)


@triton.jit(do_not_specialize=["blocks", "programs"])
def _blocks(
    x, sums, first, second, d, blocks, programs,
    KIND: tl.constexpr, SCALED: tl.constexpr, DIVIDE: tl.constexpr, TOGETHER: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The sums of TOGETHER blocks of a row; no other program writes them."""
    program = tl.program_id(0).to(tl.int64)
    row = program // programs
    block = program % programs * TOGETHER + tl.arange(0, TOGETHER)
    start = (block * (ROWS * LANES))[:, None] + tl.arange(0, LANES)[None, :]
    lanes = tl.zeros((TOGETHER, LANES), dtype=tl.float64)
    for line in range(ROWS):
        place = start + line * LANES
        number = widened(tl.load(x + row * d + place, mask=place < d, other=0.0)).to(tl.float64)
        if KIND > 0:
            number = tl.abs(number)
        if SCALED:
            if DIVIDE:
                number = number / tl.load(first + row)
            else:
                number = number * tl.load(first + row) * tl.load(second + row)
        if KIND == 2:
            number = number * number
        lanes = lanes + number
    tl.store(sums + row * blocks + block, fold_lanes(lanes, TOGETHER), mask=block < blocks)


@triton.jit(do_not_specialize=["blocks", "parts"])
def _fold(sums, folded, blocks, parts, FAN: tl.constexpr):
    """FAN neighbours become one, pair by pair; no other program writes it."""
    program = tl.program_id(0).to(tl.int64)
    row, part = program // parts, program % parts
    block = part * FAN + tl.arange(0, FAN)
    total = tl.load(sums + row * blocks + block, mask=block < blocks, other=0.0)
    tl.store(folded + row * parts + part, fold_neighbours(total, FAN))


@triton.jit(do_not_specialize=["tiles"])
def _largest(x, bits, d, tiles, TILE: tl.constexpr):
    """The largest magnitude's bits, by an atomic maximum of integers."""
    program = tl.program_id(0).to(tl.int64)
    row, first = program // tiles, program % tiles * TILE
    place = first + tl.arange(0, TILE)
    number = widened(tl.load(x + row * d + place, mask=place < d, other=0.0))
    tl.atomic_max(bits + row, tl.max(magnitude(number), axis=0), sem="relaxed")
