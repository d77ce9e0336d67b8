"""Sections of a frame, packed on the device: positions, numbers and codes as bits of 32-bit words.

Several programs may write into one word: by atomic OR into words that were zero, so in any order. Bits are
numbered from the lowest of the first byte. Nothing is checked, as it would make the host wait.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import numpy as np
import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._tables import TILE, integers, tiles_of
from laconic.kernels.gpu.codes import _symbol
from laconic.kernels.position_plan import CELLS, ELIAS_FANO, IMPLIED

PLAN_FIELDS = 9


def plan_table(plan):
    """int64 (S, 9): numel, positions, first column, form, width, cells, their counts, low and high bit."""
    return np.stack(
        [
            plan.numels, plan.used, plan.bounds[:-1], plan.forms, plan.widths, plan.cell_lengths,
            np.maximum(plan.cell_counts, 1), plan.lows[:-1], plan.highs[:-1],
        ],
        axis=1,
    )  # fmt: skip


def put_positions(words, byte, positions, plan):
    """Write positions (K,) from a byte of the frame on; widths up to 32 bits."""
    device = positions.device
    tiles = tiles_of(plan.used, device)
    launch(
        _put_positions, len(tiles), words, positions, integers(plan_table(plan), device), tiles,
        8 * byte, 8 * (byte + plan.low_bytes),
        FIELDS=PLAN_FIELDS, CELLS=CELLS, FANO=ELIAS_FANO, IMPLIED=IMPLIED, TILE=TILE,
    )  # fmt: skip


def put_numbers(words, byte, numbers):
    """Write the bytes of numbers (K,) from a byte of the frame on."""
    kind = torch.int16 if numbers.element_size() == 2 else torch.int32
    source = numbers.contiguous().view(kind)
    launch(
        _put_numbers, triton.cdiv(len(source), TILE), words, source, len(source), 8 * byte,
        WIDTH=8 * source.element_size(), TILE=TILE,
    )  # fmt: skip


def put_codes(words, byte, codes, symbols, shared, width):
    """Write codes (K,) from a byte of the frame on; their bases are 0."""
    count = triton.cdiv(len(codes), shared)
    launch(
        _put_codes, triton.cdiv(count, TILE), words, codes.contiguous(), len(codes), 8 * byte, symbols,
        ODD=symbols % 2 == 1, SHARED=shared, WIDTH=width, TILE=TILE,
    )  # fmt: skip


@triton.jit
def _or_bits(words, at, value, mask):
    """Up to 32 bits from bit ``at`` on."""
    word, shift = at >> 5, at & 31
    low = ((value << shift) & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True)
    high = (value >> (32 - shift)).to(tl.int32)
    tl.atomic_or(words + word, low, mask=mask & (low != 0), sem="relaxed")
    tl.atomic_or(words + word + 1, high, mask=mask & (high != 0), sem="relaxed")


@triton.jit(do_not_specialize=["low_bit", "high_bit"])
def _put_positions(
    words, positions, plan, tiles, low_bit, high_bit,
    FIELDS: tl.constexpr, CELLS: tl.constexpr, FANO: tl.constexpr, IMPLIED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Low bits, and ones in the high stream, of one tile of columns."""
    tile = tl.program_id(0).to(tl.int64)
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = plan + segment.to(tl.int64) * FIELDS
    used, first, form, width = (
        tl.load(field + 1), tl.load(field + 2), tl.load(field + 3), tl.load(field + 4)
    )  # fmt: skip
    if form != IMPLIED:
        i = number.to(tl.int64) * TILE + tl.arange(0, TILE)
        mask = i < used
        p = tl.load(positions + first + i, mask=mask, other=0)
        low = p
        if form == CELLS:
            low = p - tl.load(field + 5) * (i // tl.load(field + 6))
        one = tl.full((), 1, dtype=tl.int64)
        low = low & ((one << width) - 1)
        _or_bits(words, low_bit + tl.load(field + 7) + i * width, low, mask & (width > 0))
        if form >= FANO:
            mark = tl.where(form == FANO, (p >> width) + i, p)
            _or_bits(words, high_bit + tl.load(field + 8) + mark, tl.zeros_like(p) + 1, mask)


@triton.jit(do_not_specialize=["count", "bit"])
def _put_numbers(words, source, count, bit, WIDTH: tl.constexpr, TILE: tl.constexpr):
    """The bits of one tile of numbers."""
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    mask = i < count
    value = tl.load(source + i, mask=mask, other=0).to(tl.int64) & ((1 << WIDTH) - 1)
    _or_bits(words, bit + i * WIDTH, value, mask)


@triton.jit(do_not_specialize=["count", "bit", "symbols"])
def _put_codes(
    words, codes, count, bit, symbols,
    ODD: tl.constexpr, SHARED: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The symbols of one tile of units, each of SHARED codes, the first one lowest."""
    unit = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    value = tl.zeros((TILE,), dtype=tl.int64)
    for j in tl.static_range(SHARED):
        place = unit * SHARED + (SHARED - 1 - j)
        code = tl.load(codes + place, mask=place < count, other=0).to(tl.int32)
        value = value * symbols + tl.where(place < count, _symbol(code, 0, ODD), 0).to(tl.int64)
    _or_bits(words, bit + unit * WIDTH, value, unit * SHARED < count)
