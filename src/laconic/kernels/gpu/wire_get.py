"""Sections of the frames of all nodes, unpacked on the device in a fixed number of launches a group.

Frames lie in rows of 32-bit words, with two words to spare. What no sender writes raises a node's flag, at
which the host looks once for all groups: too many or too few ones in the high stream, positions out of order
or outside, symbols that are none, numbers that are not finite. Bits that only fill a byte are not checked.

A program writes the places of its own tile alone. Ones before a tile are counted (``_count``) and summed up
(``_scan``) before any position is written (``_marked``).
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import numpy as np
import torch
import triton
import triton.language as tl

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._tables import TILE, integers, tiles_of
from laconic.kernels.gpu.wire_put import PLAN_FIELDS, plan_table
from laconic.kernels.position_plan import CELLS, ELIAS_FANO

_EXPONENT = {
    torch.float32: (0x7F800000, 1), torch.bfloat16: (0x7F80, 1), torch.float16: (0x7C00, 1),
    torch.float64: (0x7FF00000, 2),
}  # fmt: skip
"""The bits of an exponent in a unit of 16 or 32 bits; units of a number, of which the last one has it."""


def get_positions(rows, byte, plan, flags):
    """Positions: int64 (n, K).

    Args:
        rows: int32 (n, words), a frame each, words next to each other.
        byte: where the positions begin.
        plan: what they were written with; widths up to 32 bits.
        flags: int32 (n,).
    """
    n, stride, device = len(rows), rows.stride(0), rows.device
    table = plan_table(plan)
    positions = torch.empty(n, plan.columns, dtype=torch.int64, device=device)
    common = (rows, stride, integers(table, device))
    bits = 8 * byte, 8 * (byte + plan.low_bytes)
    lengths = np.diff(plan.highs)
    marks = tiles_of(lengths, device)
    if len(marks):
        counts = torch.empty(n, len(marks), dtype=torch.int32, device=device)
        spans = integers(lengths, device), integers(_first_tiles(lengths), device)
        programs = len(marks)
        launch(
            _count,
            n * programs,
            *common,
            marks,
            spans[0],
            counts,
            bits[1],
            programs,
            FIELDS=PLAN_FIELDS,
            TILE=TILE,
        )
        launch(
            _scan, n * len(lengths), counts, *common[2:], *spans, flags, programs, len(lengths),
            FIELDS=PLAN_FIELDS, FANO=ELIAS_FANO, TILE=TILE, CHUNK=1024,
        )  # fmt: skip
        launch(
            _marked, n * programs, *common, marks, spans[0], counts, positions, *bits, plan.columns, programs,
            FIELDS=PLAN_FIELDS, FANO=ELIAS_FANO, TILE=TILE,
        )  # fmt: skip
    tiles = tiles_of(np.diff(plan.bounds), device)
    launch(
        _checked, n * len(tiles), *common, tiles, positions, flags, bits[0],
        plan.columns, len(tiles), FIELDS=PLAN_FIELDS, CELLS=CELLS, FANO=ELIAS_FANO, TILE=TILE,
    )  # fmt: skip
    return positions


def get_numbers(rows, byte, count, dtype, flags):
    """Numbers: (n, count) of the dtype."""
    n, stride = len(rows), rows.stride(0)
    numbers = torch.empty(n, count, dtype=dtype, device=rows.device)
    kind = torch.int16 if dtype.itemsize == 2 else torch.int32
    units = numbers.view(kind)
    exponent, each = _EXPONENT[dtype]
    tiles = triton.cdiv(units.shape[1], TILE)
    launch(
        _get_numbers, n * tiles, rows, stride, units, flags, 8 * byte, units.shape[1], tiles,
        WIDTH=8 * kind.itemsize, EXPONENT=exponent, EACH=each, TILE=TILE,
    )  # fmt: skip
    return numbers


def get_codes(rows, byte, count, symbols, shared, width, top, flags):
    """Codes: (n, count) in the narrowest dtype that holds ``top``; their bases are 0."""
    n, stride = len(rows), rows.stride(0)
    codes = torch.empty(n, count, dtype=code_dtype(top), device=rows.device)
    tiles = triton.cdiv(count, TILE)
    launch(
        _get_codes, n * tiles, rows, stride, codes, flags, 8 * byte, count, tiles, symbols, symbols**shared,
        ODD=symbols % 2 == 1, SHARED=shared, WIDTH=width, TILE=TILE,
    )  # fmt: skip
    return codes


def _first_tiles(lengths):
    counts = -(-lengths // TILE)
    return np.cumsum(counts) - counts


@triton.jit
def _bits_at(row, at, width, mask):
    """Up to 32 bits from bit ``at`` on, int64."""
    word = at >> 5
    low = tl.load(row + word, mask=mask, other=0).to(tl.int64) & 0xFFFFFFFF
    high = tl.load(row + word + 1, mask=mask, other=0).to(tl.int64) & 0xFFFFFFFF
    one = tl.full((), 1, dtype=tl.int64)
    shift = at & 31
    # 33 bits of the higher word would not fit beside the lower one.
    return ((low >> shift) | ((high << (31 - shift)) << 1)) & ((one << width) - 1)


@triton.jit
def _raise(flags, node, wrong):
    """Set the flag of a node where any is wrong."""
    found = tl.max(wrong.to(tl.int32), axis=0)
    tl.atomic_max(flags + node, found, mask=found > 0, sem="relaxed")


@triton.jit
def _marks(rows, stride, field, tiles, lengths, node, tile, high_bit, TILE: tl.constexpr):
    """The bits of one tile of a segment's high stream, 0 behind its end, and their places in it."""
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    place = number.to(tl.int64) * TILE + tl.arange(0, TILE)
    mask = place < tl.load(lengths + segment)
    at = high_bit + tl.load(field + 8) + place
    word = tl.load(rows + node * stride + (at >> 5), mask=mask, other=0).to(tl.int64)
    return tl.where(mask, (word >> (at & 31)) & 1, 0), place


@triton.jit(do_not_specialize=["high_bit", "programs"])
def _count(
    rows, stride, plan, tiles, lengths, counts, high_bit, programs, FIELDS: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """How many ones a tile of a high stream has."""
    program = tl.program_id(0).to(tl.int64)
    node, tile = program // programs, program % programs
    field = plan + tl.load(tiles + 2 * tile).to(tl.int64) * FIELDS
    bits, _ = _marks(rows, stride, field, tiles, lengths, node, tile, high_bit, TILE)
    tl.store(counts + program, tl.sum(bits, axis=0).to(tl.int32))


@triton.jit(do_not_specialize=["programs", "segments"])
def _scan(
    counts, plan, lengths, firsts, flags, programs, segments,
    FIELDS: tl.constexpr, FANO: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The counts of each tile become those of all tiles of the segment before it."""
    program = tl.program_id(0).to(tl.int64)
    node, segment = program // segments, program % segments
    field = plan + segment * FIELDS
    tiles = (tl.load(lengths + segment) + TILE - 1) // TILE
    mine = counts + node * programs + tl.load(firsts + segment)
    total = tl.zeros((), dtype=tl.int32)
    for begin in range(0, tiles, CHUNK):
        i = begin + tl.arange(0, CHUNK)
        own = tl.load(mine + i, mask=i < tiles, other=0)
        tl.store(mine + i, total + tl.cumsum(own, axis=0) - own, mask=i < tiles)
        total += tl.sum(own, axis=0)
    wrong = (tl.load(field + 3) >= FANO) & (total != tl.load(field + 1))
    tl.atomic_max(flags + node, wrong.to(tl.int32), mask=wrong, sem="relaxed")


@triton.jit(do_not_specialize=["low_bit", "high_bit", "columns", "programs"])
def _marked(
    rows, stride, plan, tiles, lengths, counts, positions, low_bit, high_bit, columns, programs,
    FIELDS: tl.constexpr, FANO: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The positions that the ones of a tile stand for, as far as there is room for them."""
    program = tl.program_id(0).to(tl.int64)
    node, tile = program // programs, program % programs
    field = plan + tl.load(tiles + 2 * tile).to(tl.int64) * FIELDS
    bits, place = _marks(rows, stride, field, tiles, lengths, node, tile, high_bit, TILE)
    i = tl.load(counts + program).to(tl.int64) + tl.cumsum(bits, axis=0) - bits
    mask = (bits > 0) & (i < tl.load(field + 1))
    width = tl.load(field + 4)
    low = _bits_at(rows + node * stride, low_bit + tl.load(field + 7) + i * width, width, mask & (width > 0))
    p = tl.where(tl.load(field + 3) == FANO, ((place - i) << width) | low, place)
    tl.store(positions + node * columns + tl.load(field + 2) + i, p, mask=mask)


@triton.jit
def _position(row, field, positions, i, mask, low_bit, CELLS: tl.constexpr, FANO: tl.constexpr):
    """The position in column i of a segment, whatever its form; whether its low bits keep to its cell."""
    form, width = tl.load(field + 3), tl.load(field + 4)
    inside = tl.full(i.shape, True, dtype=tl.int1)
    p = i
    if form == CELLS:
        length = tl.load(field + 5)
        low = _bits_at(row, low_bit + tl.load(field + 7) + i * width, width, mask & (width > 0))
        inside = low < length
        p = length * (i // tl.load(field + 6)) + low
    if form >= FANO:
        p = tl.load(positions + i, mask=mask, other=0)
    return p, inside


@triton.jit(do_not_specialize=["low_bit", "columns", "programs"])
def _checked(
    rows, stride, plan, tiles, positions, flags, low_bit, columns, programs,
    FIELDS: tl.constexpr, CELLS: tl.constexpr, FANO: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Positions in cells and implied ones are written, and all are held against their neighbours."""
    program = tl.program_id(0).to(tl.int64)
    node, tile = program // programs, program % programs
    segment, number = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    field = plan + segment.to(tl.int64) * FIELDS
    numel, used = tl.load(field), tl.load(field + 1)
    own, row = positions + node * columns + tl.load(field + 2), rows + node * stride
    i = number.to(tl.int64) * TILE + tl.arange(0, TILE)
    mask = i < used
    p, inside = _position(row, field, own, i, mask, low_bit, CELLS, FANO)
    before, _ = _position(row, field, own, i - 1, mask & (i > 0), low_bit, CELLS, FANO)
    rises = (i == 0) | (p > before)
    _raise(flags, node, mask & ((p >= numel) | (p < 0) | (rises == 0) | (inside == 0)))
    if tl.load(field + 3) < FANO:
        tl.store(own + i, p, mask=mask)


@triton.jit(do_not_specialize=["bit", "count", "programs"])
def _get_numbers(
    rows, stride, units, flags, bit, count, programs,
    WIDTH: tl.constexpr, EXPONENT: tl.constexpr, EACH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The bits of one tile of numbers."""
    program = tl.program_id(0).to(tl.int64)
    node, tile = program // programs, program % programs
    i = tile * TILE + tl.arange(0, TILE)
    mask = i < count
    width = tl.full((), WIDTH, dtype=tl.int64)
    value = _bits_at(rows + node * stride, bit + i * WIDTH, width, mask)
    broken = mask & ((value & EXPONENT) == EXPONENT) & (i % EACH == EACH - 1)
    _raise(flags, node, broken)
    kind = tl.uint16 if WIDTH == 16 else tl.uint32
    target = units + node * count + i
    tl.store(target, value.to(kind).to(units.dtype.element_ty, bitcast=True), mask=mask)


@triton.jit(do_not_specialize=["bit", "count", "programs", "symbols", "most"])
def _get_codes(
    rows, stride, codes, flags, bit, count, programs, symbols, most,
    ODD: tl.constexpr, SHARED: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile of codes."""
    program = tl.program_id(0).to(tl.int64)
    node, tile = program // programs, program % programs
    i = tile * TILE + tl.arange(0, TILE)
    mask = i < count
    width = tl.full((), WIDTH, dtype=tl.int64)
    symbol = _bits_at(rows + node * stride, bit + (i // SHARED) * WIDTH, width, mask)
    wrong = symbol >= most
    if SHARED > 1:
        digit = i % SHARED
        for j in tl.static_range(SHARED - 1):
            symbol = tl.where(digit > j, symbol // symbols, symbol)
        # What stands behind the last code of all is 0.
        wrong = wrong | ((i == count - 1) & (symbol >= symbols))
        symbol = symbol % symbols
    _raise(flags, node, mask & wrong)
    if ODD:
        size = (symbol + 1) // 2
        code = tl.where(symbol % 2 == 1, size, -size)
    else:
        size = symbol // 2 + 1
        code = tl.where(symbol % 2 == 0, size, -size)
    tl.store(codes + node * count + i, code.to(codes.dtype.element_ty), mask=mask)
