"""Updates of optimisers, computed a tile at a time just before Top-k reads them.

What an update needs is given by addresses. Written are the memory plus the update, and the moment after it.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from typing import NamedTuple

from laconic.kernels.cpu._jit import inner_loop
from laconic.kernels.cpu._simd import (
    always_inlined,
    load,
    load_16,
    load_one,
    never_inlined,
    root,
    store,
    stream,
)
from laconic.kernels.cpu.topk_tiles import ADAMW

_LANES = 16
_FACTOR, _BETA, _REST, _WHOLE, _EPS, _RATE = 0, 4, 5, 6, 7, 8
"""Places in a row of the settings of ``laconic.kernels.adamw_update``."""


class Update(NamedTuple):
    """One segment of ``topk_tiles.Operands``: its update is of the kind ``what``, if any.

    Args:
        what: ``ADAMW``, and ``NARROW`` for gradients in 16 bits; anything else is no update.
        gradient, memory, out: addresses.
        moment, after: likewise, of the second moment before and after.
        settings: likewise, of the segment's row.
        streamed: whether ``after`` is written past the caches.
    """

    what: int
    gradient: int
    memory: int
    out: int
    moment: int
    after: int
    settings: int
    streamed: int


@inner_loop
def update_of(settings, operands, segment):
    """The update of one segment; None where ``settings`` are, so that none is compiled."""
    always_inlined()
    if settings is None:
        return None
    return Update(
        operands.what,
        operands.x[segment],
        operands.memory[segment],
        operands.out[segment],
        operands.moment[segment],
        operands.after[segment],
        settings[segment],
        operands.streamed,
    )


def _adamw(lanes):
    floats, floats_16, setting = load(lanes), load_16(lanes), load_one(lanes)

    @inner_loop
    def put(update, start, end, streamed, like):
        factor, beta = setting(update.settings, _FACTOR, like), setting(update.settings, _BETA, like)
        rest, whole = setting(update.settings, _REST, like), setting(update.settings, _WHOLE, like)
        eps, rate = setting(update.settings, _EPS, like), setting(update.settings, _RATE, like)
        for i in range(start, end, lanes):
            if update.what == ADAMW:
                x = floats(update.gradient, i, like) * factor
            else:
                x = floats_16(update.gradient, i, like) * factor
            moment = floats(update.moment, i, like) * beta + x * x * rest
            if streamed:
                stream(moment, update.after, i)
            else:
                store(moment, update.after, i)
            length = root(moment / whole) + eps
            # The difference is 0, or NaN where the length is not finite.
            number = x / length * (rate + (length - length))
            store(floats(update.memory, i, like) + number, update.out, i)

    return put


_lines, _ones = _adamw(_LANES), _adamw(1)


@inner_loop
def produce(update, start, count, bits):
    """Write the moments, and memory plus update, of the numbers [start, start + count), if there is one.

    ``bits`` is an array as wide as the numbers.
    """
    never_inlined()
    if update is None:
        return
    if update.what < ADAMW:
        return
    whole = start + count // _LANES * _LANES
    aligned = (update.after + start * bits.itemsize) % 64 == 0
    _lines(update, start, whole, update.streamed != 0 and aligned, bits)
    _ones(update, whole, start + count, False, bits)
