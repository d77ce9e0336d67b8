"""Operands of Top-k, read a tile at a time: x, x - memory or memory + x; nothing else reads them.

A tile is an array of bit patterns that the first cache holds. ``read`` is written once for 64 numbers in
registers and for one. An optimiser's update takes longer, so it is computed once, by ``topk_updates``, a
tile before it is read. Operands are read exactly where the segment lies, never beside it: what follows a
tensor in memory may belong to nobody.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from typing import NamedTuple

import numpy as np

from laconic.kernels.cpu._jit import inner_loop
from laconic.kernels.cpu._simd import LANES, always_inlined, load, load_16, never_inlined, pattern, store

X, DIFFERENCE, SUM, NARROW, ADAMW = 0, 1, 2, 3, 6
"""Operands of the selection: x; fl(x - memory); fl(memory + x), which is also written to out.

Where x has 16 bits, which become the upper half of 32, ``NARROW`` is added. With ``ADAMW``, it is what
``topk_updates.produce`` has written to out: the memory plus the update that AdamW makes of the gradient x.
"""


class Operands(NamedTuple):
    """Where the operands of all segments lie.

    Args:
        what: ``X``, ``DIFFERENCE``, ``SUM`` or ``ADAMW``; and ``NARROW``.
        x, memory, out: int64 (S,), addresses of the segments' first numbers; any for what is not there.
        moment, after, settings, streamed: as ``topk_updates.Update``; all None for loops without
            updates.
    """

    what: int
    x: np.ndarray
    memory: np.ndarray
    out: np.ndarray
    moment: np.ndarray | None
    after: np.ndarray | None
    settings: np.ndarray | None
    streamed: int | None


class Source(NamedTuple):
    """The operands of one segment: as ``Operands``, with one address each."""

    what: int
    x: int
    memory: int
    out: int


def _reader(lanes):
    floats, floats_16 = load(lanes), load_16(lanes)

    @inner_loop
    def read(source, i, like):
        always_inlined()
        # The most frequent first: every 64 numbers come by here.
        if source.what == X:
            return floats(source.x, i, like)
        if source.what == DIFFERENCE:
            return floats(source.x, i, like) - floats(source.memory, i, like)
        x = floats(source.x, i, like) if source.what == SUM else floats_16(source.x, i, like)
        if source.what == X + NARROW:
            return x
        memory = floats(source.memory, i, like)
        if source.what == DIFFERENCE + NARROW:
            return x - memory
        total = memory + x
        store(total, source.out, i)
        return total

    return read


line, one = _reader(LANES), _reader(1)
"""``function(source, i, like)``: the operand's 64 numbers from i on, or one."""


@inner_loop
def address_of(bits):
    """Where an array lies."""
    always_inlined()
    return np.int64(bits.ctypes.data)


@inner_loop
def number(source, i, like):
    """The pattern of one number."""
    never_inlined()
    return pattern(one(source, i, like))


@inner_loop
def fill(source, start, count, bits):
    """The patterns of the numbers [start, start + count) of a segment, into ``bits[:count]``."""
    never_inlined()
    tile = address_of(bits)
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store(line(source, start + i, bits), tile, i)
    if whole < count:
        if count >= LANES:
            # Some of those before again: what follows is another's.
            store(line(source, start + count - LANES, bits), tile, count - LANES)
        else:
            for i in range(count):
                bits[i] = number(source, start + i, bits)
