"""Codes as bits and back: the bytes of ``laconic.kernels.coding.put_codes``.

Each program gathers what belongs in its own words or codes, so nothing is written twice and no atomic is
needed. Bits are numbered from the lowest of the first byte.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels._gpu._launch import as_rows, launch
from laconic.kernels._gpu._numbers import read
from laconic.kernels._narrow import code_dtype

_TILE = 512


def pack_codes(codes, base, symbols, shared, width):
    """The bytes of one row of codes; the arguments are those of ``coding.put_codes``.

    Codes must be ones that the grid has: nothing is checked here, as it would make the host wait.

    Args:
        codes: int8, int16 or int32 (k,).
        base: the number of the level below the row's lowest.
        symbols: how many there are; odd where 0 is a code.
        shared: symbols a group; above 1 a group is one byte.
        width: bits a group.

    Returns:
        uint8 (ceil(k width / 8),), or (ceil(k / shared),).
    """
    codes, k = codes.contiguous(), len(codes)
    if shared > 1:
        groups = torch.empty(triton.cdiv(k, shared), dtype=torch.uint8, device=codes.device)
        options = {"ODD": symbols % 2 == 1, "SHARED": shared, "TILE": _TILE}
        launch(_put_groups, triton.cdiv(len(groups), _TILE), codes, groups, k, base, symbols, **options)
        return groups
    words = torch.empty(triton.cdiv(k * width, 32), dtype=torch.int32, device=codes.device)
    options = {"ODD": symbols % 2 == 1, "WIDTH": width, "TILE": _TILE}
    launch(_put, triton.cdiv(len(words), _TILE), codes, words, k, base, **options)
    return words.view(torch.uint8)[: (k * width + 7) // 8]


def unpack_codes(data, base, symbols, shared, width, k, top):
    """The k codes, in the dtype of codes up to ``top``.

    Symbols that the grid has not are not noticed; check frames on the host.
    """
    codes = torch.empty(k, dtype=code_dtype(top), device=data.device)
    odd = symbols % 2 == 1
    data = data.contiguous()
    programs = triton.cdiv(k, _TILE)
    if shared > 1:
        launch(_get_groups, programs, data, codes, k, base, symbols, ODD=odd, SHARED=shared, TILE=_TILE)
    else:
        launch(_get, programs, data, codes, k, base, len(data), ODD=odd, WIDTH=width, TILE=_TILE)
    return codes


def pack_signs(x, memory=None):
    """One bit a number of x, or of ``fl(x - memory)``: 1 below 0. uint8 (ceil(d / 8),) for (d,)."""
    rows, held = as_rows(x, memory)
    if len(rows) != 1:
        raise ValueError(f"pack_signs takes one vector, got {tuple(x.shape)}")
    d = rows.shape[1]
    data = torch.empty(triton.cdiv(d, 8), dtype=torch.uint8, device=x.device)
    launch(
        _signs, triton.cdiv(len(data), _TILE), rows, held, data, d,
        DIFFERENCE=memory is not None, TILE=_TILE,
    )  # fmt: skip
    return data


@triton.jit
def _symbol(code, base, ODD: tl.constexpr):
    """Level by level, the positive one first; 0 before all where there is a 0."""
    size = tl.abs(code) - base
    if ODD:
        symbol = tl.where(code == 0, 0, 2 * size - (code > 0).to(tl.int32))
    else:
        symbol = 2 * size - 1 - (code > 0).to(tl.int32)
    return symbol


@triton.jit
def _code(symbol, base, ODD: tl.constexpr):
    """The code of a symbol."""
    if ODD:
        size = tl.where(symbol > 0, ((symbol + 1) >> 1) + base, 0)
        code = tl.where((symbol & 1) == 1, size, -size)
    else:
        size = (symbol >> 1) + 1
        code = tl.where((symbol & 1) == 1, -size, size)
    return code


@triton.jit(do_not_specialize=["base"])
def _put(codes, words, k, base, ODD: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr):
    """Words of 32 bits from all symbols that reach into them."""
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    # A 64-bit word from the first symbol's first bit on holds what any 32 bits need, symbol by symbol.
    first = number * 32 // WIDTH
    before = (number * 32 - first * WIDTH).to(tl.int32)
    word = tl.zeros((TILE,), dtype=tl.int64)
    for j in tl.static_range((31 + WIDTH - 1) // WIDTH + 1):
        place = first + j
        code = tl.load(codes + place, mask=place < k, other=0).to(tl.int32)
        symbol = tl.where(place < k, _symbol(code, base, ODD), 0).to(tl.int64)
        shift = j * WIDTH - before
        left = symbol << tl.minimum(tl.maximum(shift, 0), 63)
        word |= tl.where(shift < 32, tl.where(shift >= 0, left, symbol >> tl.maximum(-shift, 0)), 0)
    word = (word & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True)
    tl.store(words + number, word, mask=first < k)


@triton.jit(do_not_specialize=["base"])
def _get(data, codes, k, base, size, ODD: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr):
    """Codes from the bytes that their bits lie in."""
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    first = number * WIDTH
    bits = tl.zeros((TILE,), dtype=tl.int64)
    for j in tl.static_range((7 + WIDTH + 7) // 8):
        at = (first >> 3) + j
        byte = tl.load(data + at, mask=(at < size) & (number < k), other=0)
        bits |= byte.to(tl.int64) << (8 * j)
    symbol = ((bits >> (first & 7)) & ((1 << WIDTH) - 1)).to(tl.int32)
    tl.store(codes + number, _code(symbol, base, ODD), mask=number < k)


@triton.jit(do_not_specialize=["base", "symbols"])
def _put_groups(codes, groups, k, base, symbols, ODD: tl.constexpr, SHARED: tl.constexpr, TILE: tl.constexpr):
    """Bytes of SHARED symbols each, the first one lowest."""
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    group = tl.zeros((TILE,), dtype=tl.int32)
    for j in tl.static_range(SHARED):
        place = number * SHARED + (SHARED - 1 - j)
        code = tl.load(codes + place, mask=place < k, other=0).to(tl.int32)
        group = group * symbols + tl.where(place < k, _symbol(code, base, ODD), 0)
    tl.store(groups + number, group.to(tl.uint8), mask=number * SHARED < k)


@triton.jit(do_not_specialize=["base", "symbols"])
def _get_groups(data, codes, k, base, symbols, ODD: tl.constexpr, SHARED: tl.constexpr, TILE: tl.constexpr):
    """Codes from the bytes that hold their groups."""
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    group = tl.load(data + number // SHARED, mask=number < k, other=0).to(tl.int32)
    place = (number % SHARED).to(tl.int32)
    for j in tl.static_range(SHARED):
        group = tl.where(place > j, group // symbols, group)
    tl.store(codes + number, _code(group % symbols, base, ODD), mask=number < k)


@triton.jit
def _signs(x, memory, data, d, DIFFERENCE: tl.constexpr, TILE: tl.constexpr):
    """Bytes of eight signs."""
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    place = (number * 8)[:, None] + tl.arange(0, 8)[None, :]
    value = read(x, memory, place, place < d, DIFFERENCE)
    bit = (value < 0).to(tl.int32) << tl.arange(0, 8)[None, :]
    tl.store(data + number, tl.sum(bit, axis=1).to(tl.uint8), mask=number * 8 < d)
