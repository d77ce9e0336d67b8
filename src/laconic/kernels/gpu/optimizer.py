"""Optimiser arithmetic on all segments of a bucket in one launch, as ``laconic.kernels.optimizer`` says.

Every product, sum, quotient and square root is rounded by itself: launches forbid fused multiply-add, and
division and square root are the correctly rounded ones. A program reads and writes its own tile alone.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._numbers import is_finite, narrowed, quotient, widened
from laconic.kernels.gpu._tables import TILE, integers, starts_of, tiles_of
from laconic.kernels.gpu.segments import tile_of

_UPDATE, _ADVANCE, _BOTH = 1, 2, 3


def adamw_update(out, gradient, first, second, rows, numels):
    """As ``laconic.kernels.adamw_update``; rows (S, 9) in the accumulation dtype."""
    _adamw(out, gradient, first, second, second, rows, numels, _UPDATE)


def adamw_advance(first, second, gradient, rows, numels, after):
    """As ``laconic.kernels.adamw_advance``."""
    _adamw(second, gradient, first, second, after, rows, numels, _ADVANCE)


def adamw_both(out, gradient, second, after, rows, numels):
    """Update and second moment after it in one reading, without a first moment."""
    _adamw(out, gradient, second, second, after, rows, numels, _BOTH)


def momentum_update(out, gradient, buffer, rows, numels):
    """As ``laconic.kernels.momentum_update``."""
    _launch(_momentum, (out, gradient, buffer), rows, numels)


def scale_segments(out, x, rows, numels):
    """As ``laconic.kernels.scale_segments``."""
    _launch(_scale, (out, x), rows, numels)


def apply_steps(parameters, steps, rows, numels):
    """As ``laconic.kernels.apply_steps``."""
    _launch(_apply, (parameters, steps), rows, numels)


def _adamw(out, gradient, first, second, after, rows, numels, what):
    has_first = bool((rows[:, 1] > 0).any())
    _launch(_adamw_tile, (out, gradient, first, second, after), rows, numels, WHAT=what, FIRST=has_first)


def _launch(kernel, vectors, rows, numels, **constants):
    device = vectors[0].array.device
    places = [part for each in vectors for part in (each.array, starts_of(each, device))]
    tiles = tiles_of(numels, device)
    settings = torch.from_numpy(rows).to(device)
    launch(kernel, len(tiles), *places, settings, tiles, integers(numels, device), TILE=TILE, **constants)


@triton.jit
def _adamw_tile(
    out, out_starts, x, x_starts, first, first_starts, second, second_starts, after, after_starts,
    rows, tiles, numels, WHAT: tl.constexpr, FIRST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The update of one tile (WHAT & 1), and the moments after the step (WHAT & 2)."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    row = rows + 9 * segment.to(tl.int64)
    factor, beta1, rest1, whole1 = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    beta2, rest2, whole2 = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    eps, rate = tl.load(row + 7), tl.load(row + 8)
    gradient = widened(tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0)).to(
        factor.dtype
    )
    gradient = gradient * factor
    held = tl.load(second + tl.load(second_starts + segment) + place, mask=mask, other=0.0)
    square = held * beta2 + gradient * gradient * rest2
    if WHAT >= 2:
        tl.store(after + tl.load(after_starts + segment) + place, square, mask=mask)
    mean = gradient
    if FIRST:
        at = first + tl.load(first_starts + segment) + place
        mean = tl.load(at, mask=mask, other=0.0) * beta1 + gradient * rest1
        if WHAT >= 2:
            tl.store(at, mean, mask=mask & (tl.zeros_like(mean) + beta1 > 0))
        if WHAT % 2 == 1:
            ones = tl.zeros_like(mean) + 1.0
            mean = tl.where(beta1 > 0, quotient(mean, ones * whole1), gradient)
    if WHAT % 2 == 1:
        ones = tl.zeros_like(square) + 1.0
        length = tl.sqrt(quotient(square, ones * whole2).to(tl.float64)).to(square.dtype) + eps
        sound = is_finite(length)
        update = tl.where(sound, quotient(mean, tl.where(sound, length, ones)), float("nan")) * rate
        tl.store(out + tl.load(out_starts + segment) + place, update, mask=mask)


@triton.jit
def _momentum(
    out, out_starts, x, x_starts, buffer, buffer_starts, rows, tiles, numels, TILE: tl.constexpr
):  # fmt: skip
    """``(buffer mu + x factor) rate`` of one tile."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    row = rows + 3 * segment.to(tl.int64)
    factor, mu, rate = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    number = widened(tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0)).to(factor.dtype)
    held = tl.load(buffer + tl.load(buffer_starts + segment) + place, mask=mask, other=0.0)
    moved = (held * mu + number * factor) * rate
    tl.store(out + tl.load(out_starts + segment) + place, moved, mask=mask)


@triton.jit
def _scale(out, out_starts, x, x_starts, rows, tiles, numels, TILE: tl.constexpr):
    """``x factor rate`` of one tile."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    row = rows + 2 * segment.to(tl.int64)
    factor, rate = tl.load(row), tl.load(row + 1)
    number = widened(tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0)).to(factor.dtype)
    tl.store(out + tl.load(out_starts + segment) + place, number * factor * rate, mask=mask)


@triton.jit
def _apply(parameters, starts, steps, step_starts, rows, tiles, numels, TILE: tl.constexpr):
    """``parameter decay - step rate`` of one tile, rounded to the parameters' dtype."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    row = rows + 2 * segment.to(tl.int64)
    decay, rate = tl.load(row), tl.load(row + 1)
    at = parameters + tl.load(starts + segment) + place
    own = tl.load(at, mask=mask, other=0.0)
    step = tl.load(steps + tl.load(step_starts + segment) + place, mask=mask, other=0.0)
    moved = widened(own).to(step.dtype) * decay - step * rate
    tl.store(at, narrowed(moved, own), mask=mask)
