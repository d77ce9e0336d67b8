"""Philox-4x32-10 on the device: the words of ``laconic.kernels.Stream``."""
# mypy: ignore-errors
# Triton's decorators are not typed.

import math

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch

_BLOCKS = 256


def origins(draw, rows, device):
    """Seed, round, node and segment of each row's stream: int64 (rows, 4) on the device.

    Raises:
        ValueError: where the stream has as many rows as neither one nor all.
    """
    origin = draw.origin().reshape(-1, 4)
    if len(origin) not in (1, rows):
        raise ValueError(f"the stream draws for {len(origin)} rows, but there are {rows}")
    return origin.expand(rows, 4).contiguous().to(device, non_blocking=True)


def words(draw, count, purpose, device):
    """As ``draw.words(count, purpose, device)``: int64 (..., count) with values in [0, 2^32)."""
    batch = draw.origin().shape[:-1]
    rows = math.prod(batch)
    out = torch.empty(rows, count, dtype=torch.int64, device=device)
    programs = triton.cdiv(count, 4 * _BLOCKS)
    origin = origins(draw, rows, out.device)
    launch(_words, rows * programs, origin, out, count, programs, PURPOSE=int(purpose), BLOCKS=_BLOCKS)
    return out.view(*batch, count)


@triton.jit
def words_of(origin, first, PURPOSE: tl.constexpr, BLOCKS: tl.constexpr):
    """uint32 (4 BLOCKS,): the words of coordinates 4 first, 4 first + 1, ... of the stream."""
    seed = tl.load(origin)
    # The purpose's own key is the first half of a block under the seed; its step is 0.
    low, high, _, _ = tl.philox(seed, PURPOSE, 0, 0, 0)
    key = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
    block = (first + tl.arange(0, BLOCKS)).to(tl.int32)
    zero = tl.zeros_like(block)
    segment = zero + tl.load(origin + 3).to(tl.int32)
    node = zero + tl.load(origin + 2).to(tl.int32)
    round_ = zero + tl.load(origin + 1).to(tl.int32)
    w0, w1, w2, w3 = tl.philox(key, block, segment, node, round_)
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit
def _words(origin, out, count, programs, PURPOSE: tl.constexpr, BLOCKS: tl.constexpr):
    """One word a coordinate; each program writes its own."""
    program = tl.program_id(0).to(tl.int64)
    row, first = program // programs, program % programs * BLOCKS
    word = words_of(origin + 4 * row, first, PURPOSE, BLOCKS)
    coordinate = 4 * first + tl.arange(0, 4 * BLOCKS)
    tl.store(out + row * count + coordinate, word.to(tl.int64), mask=coordinate < count)
