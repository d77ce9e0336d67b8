"""Segments element by element: sums, copies, casts and signs, wherever each segment lies.

One launch for all segments. A program reads and writes the places of its own tile alone.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._numbers import is_finite, narrowed, widened
from laconic.kernels.gpu._tables import TILE, integers, starts_of, tiles_of
from laconic.kernels.reference.casting import largest_cast
from laconic.kernels.tables import accumulation_dtype, bounds_of


def add_segments(out, x, y, numels):
    """As ``laconic.kernels.add_segments``."""
    _elementwise(_add, numels, out, x, y)


def copy_segments(out, x, numels):
    """As ``laconic.kernels.copy_segments``."""
    _elementwise(_copy, numels, out, x)


def cast_segments(x, memory, numels, dtype):
    """As ``laconic.kernels.cast_segments``; the second is int32 (1,), 1 where all are finite, else 0."""
    device, wide = x.array.device, accumulation_dtype(x.dtype)
    values = torch.empty(int(numels.sum()), dtype=dtype, device=device)
    finite = torch.ones(1, dtype=torch.int32, device=device)
    most = torch.full((1,), largest_cast(wide, dtype), dtype=wide, device=device)
    tiles = tiles_of(numels, device)
    launch(
        _cast, len(tiles), *_read(x, memory, device), tiles, *_columns(numels, device), values, finite, most,
        DIFFERENCE=memory is not None, TILE=TILE,
    )  # fmt: skip
    return values, finite


def sign_segments(x, memory, numels):
    """As ``laconic.kernels.sign_segments``: int8 (K,)."""
    device = x.array.device
    codes = torch.empty(int(numels.sum()), dtype=torch.int8, device=device)
    tiles = tiles_of(numels, device)
    launch(
        _signs, len(tiles), *_read(x, memory, device), tiles, *_columns(numels, device), codes,
        DIFFERENCE=memory is not None, TILE=TILE,
    )  # fmt: skip
    return codes


def _elementwise(kernel, numels, *vectors):
    device = vectors[0].array.device
    tiles = tiles_of(numels, device)
    places = [part for each in vectors for part in (each.array, starts_of(each, device))]
    launch(kernel, len(tiles), *places, tiles, integers(numels, device), TILE=TILE)


def _read(x, memory, device):
    memory = x if memory is None else memory
    return x.array, starts_of(x, device), memory.array, starts_of(memory, device)


def _columns(numels, device):
    return integers(numels, device), integers(bounds_of(numels)[:-1], device)


@triton.jit
def tile_of(tiles, numels, TILE: tl.constexpr):
    """The segment of this program's tile, places in the segment, and which of them are there."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    place = number.to(tl.int64) * TILE + tl.arange(0, TILE)
    return segment, place, place < tl.load(numels + segment)


@triton.jit
def number_at(x, x_starts, memory, memory_starts, segment, place, mask, DIFFERENCE: tl.constexpr):
    """``x`` or ``fl(x - memory)`` of a segment, in the accumulation dtype."""
    number = widened(tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0))
    if DIFFERENCE:
        held = tl.load(memory + tl.load(memory_starts + segment) + place, mask=mask, other=0.0)
        number = number.to(held.dtype) - held
    return number


@triton.jit
def _add(out, out_starts, x, x_starts, y, y_starts, tiles, numels, TILE: tl.constexpr):
    """The sum of two numbers."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    target = out + tl.load(out_starts + segment) + place
    first = widened(tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0))
    second = widened(tl.load(y + tl.load(y_starts + segment) + place, mask=mask, other=0.0))
    kind = out.dtype.element_ty
    tl.store(target, first.to(kind) + second.to(kind), mask=mask)


@triton.jit
def _copy(out, out_starts, x, x_starts, tiles, numels, TILE: tl.constexpr):
    """A number, rounded to out's dtype."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    target = out + tl.load(out_starts + segment) + place
    number = tl.load(x + tl.load(x_starts + segment) + place, mask=mask, other=0.0)
    if number.dtype == out.dtype.element_ty:
        tl.store(target, number, mask=mask)
    else:
        like = tl.load(target, mask=mask, other=0.0)
        tl.store(target, narrowed(widened(number), like), mask=mask)


@triton.jit
def _cast(
    x, x_starts, memory, memory_starts, tiles, numels, bounds, values, finite, most,
    DIFFERENCE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A number, no larger than the largest of values' dtype, rounded to it; notes one that is not finite."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    number = number_at(x, x_starts, memory, memory_starts, segment, place, mask, DIFFERENCE)
    wrong = tl.max((mask & (is_finite(number) == 0)).to(tl.int32), axis=0)
    tl.atomic_min(finite, 1 - wrong, mask=wrong > 0, sem="relaxed")
    largest = tl.load(most).to(number.dtype)
    number = tl.where(number > largest, largest, tl.where(number < -largest, -largest, number))
    target = values + tl.load(bounds + segment) + place
    tl.store(target, narrowed(number, tl.load(target, mask=mask, other=0.0)), mask=mask)


@triton.jit
def _signs(
    x, x_starts, memory, memory_starts, tiles, numels, bounds, codes,
    DIFFERENCE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """-1 of negative numbers, else 1."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    number = number_at(x, x_starts, memory, memory_starts, segment, place, mask, DIFFERENCE)
    code = tl.where(number < 0, -1, 1).to(tl.int8)
    tl.store(codes + tl.load(bounds + segment) + place, code, mask=mask)
