"""CRC-32 of rows of bytes on the device, without its constants: the state after the bytes, from state 0.

Leading zeros leave state 0 alone, so a row is cut into equal chunks from its end. A program runs through its
own chunks byte by byte; then neighbours are joined, 1024 at a launch: the left one's state moves on by as
many zero bytes as the right one has, which is a matrix of bits.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

from functools import lru_cache

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._tables import ready
from laconic.kernels.reference.checksum import TABLE, zeros_operator

_CHUNK, _LANES, _FAN = 128, 128, 1024


def crc32_rows(rows, first, length):
    """The states of the bytes from ``first`` on: int64 (n,).

    Args:
        rows: int32 (n, words).
        first: the first byte.
        length: bytes, at least 1.
    """
    n, stride, device = len(rows), rows.stride(0), rows.device
    count, reach = triton.cdiv(length, _CHUNK), _CHUNK
    programs = triton.cdiv(count, _LANES)
    states = torch.empty(n, count, dtype=torch.int64, device=device)
    launch(
        _chunks, n * programs, rows, stride, _table(device), states, first, length, count, programs,
        CHUNK=_CHUNK, LANES=_LANES,
    )  # fmt: skip
    while count > 1:
        parts = triton.cdiv(count, _FAN)
        joined = torch.empty(n, parts, dtype=torch.int64, device=device)
        launch(_join, n * parts, states, _operators(reach, device), joined, count, parts, FAN=_FAN)
        states, count, reach = joined, parts, reach * _FAN
    return states[:, 0]


@lru_cache(maxsize=8)
def _table(device):
    return ready(torch.tensor(TABLE, dtype=torch.int64, device="cpu").to(device))


@lru_cache(maxsize=32)
def _operators(reach, device):
    """int64 (10, 32): what each bit of a state becomes by ``reach``, twice, four times as many zero bytes."""
    return ready(
        torch.tensor([zeros_operator(reach << level) for level in range(10)], device="cpu").to(device)
    )


@triton.jit(do_not_specialize=["first", "length", "count", "programs"])
def _chunks(
    rows, stride, table, states, first, length, count, programs, CHUNK: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    """The states of some chunks, each from 0."""
    program = tl.program_id(0).to(tl.int64)
    node, group = program // programs, program % programs
    chunk = group * LANES + tl.arange(0, LANES)
    start = length - (count - chunk) * CHUNK
    state = tl.zeros((LANES,), dtype=tl.int64)
    for i in range(CHUNK):
        at = start + i
        inside = (at >= 0) & (chunk < count)
        byte = first + at
        word = tl.load(rows + node * stride + (byte >> 2), mask=inside, other=0)
        number = (word >> ((byte & 3) * 8).to(tl.int32)).to(tl.int64)
        state = tl.load(table + ((state ^ tl.where(inside, number, 0)) & 255)) ^ (state >> 8)
    tl.store(states + node * count + chunk, state, mask=chunk < count)


@triton.jit
def _joined(states, operators, level, HALF: tl.constexpr):
    """Neighbours become one."""
    left, right = tl.split(tl.reshape(states, (HALF, 2)))
    for bit in range(32):
        right = right ^ tl.where(((left >> bit) & 1) != 0, tl.load(operators + level * 32 + bit), 0)
    return right


@triton.jit(do_not_specialize=["count", "parts"])
def _join(states, operators, joined, count, parts, FAN: tl.constexpr):
    """Up to FAN neighbours become one; where there are fewer, zeros stand before the first."""
    tl.static_assert(FAN == 1024)
    program = tl.program_id(0).to(tl.int64)
    node, part = program // parts, program % parts
    i = count - (parts - part) * FAN + tl.arange(0, FAN)
    state = tl.load(states + node * count + i, mask=i >= 0, other=0)
    state = _joined(state, operators, 0, 512)
    state = _joined(state, operators, 1, 256)
    state = _joined(state, operators, 2, 128)
    state = _joined(state, operators, 3, 64)
    state = _joined(state, operators, 4, 32)
    state = _joined(state, operators, 5, 16)
    state = _joined(state, operators, 6, 8)
    state = _joined(state, operators, 7, 4)
    state = _joined(state, operators, 8, 2)
    left, right = tl.split(tl.reshape(state, (1, 2)))
    for bit in range(32):
        right = right ^ tl.where(((left >> bit) & 1) != 0, tl.load(operators + 9 * 32 + bit), 0)
    tl.store(joined + program + tl.arange(0, 1), right)
