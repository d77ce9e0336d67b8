"""Bit packing of codes: the bytes of ``laconic.kernels.group_codes.put_codes``.

Each program gathers what belongs in its own words, so nothing is written twice and no atomic is
needed. Bits are numbered from the lowest of the first byte.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch

_TILE = 512


def pack_codes(codes, base, symbols, shared, width):
    """The bytes of one row of codes.

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


@triton.jit
def _symbol(code, base, ODD: tl.constexpr):
    """Level by level, the positive one first; 0 before all where there is a 0."""
    size = tl.abs(code) - base
    if ODD:
        symbol = tl.where(code == 0, 0, 2 * size - (code > 0).to(tl.int32))
    else:
        symbol = 2 * size - 1 - (code > 0).to(tl.int32)
    return symbol


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
