"""Unaligned 64-bit words of byte arrays, and the smaller and larger of two integers, for compiled loops."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from laconic.kernels.cpu._jit import inner_loop

U = np.uint64
_WORD = ir.IntType(64).as_pointer()


def _place(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _WORD)


@intrinsic
def load_word(_context, data, _start):
    """The little-endian word of the eight bytes from ``start`` on."""

    def build(context, builder, signature, values):
        return builder.load(_place(context, builder, signature.args[0], *values), align=1)

    return types.uint64(data, types.int64), build


@intrinsic
def store_word(_context, data, _start, _word):
    """Write a word to the eight bytes from ``start`` on."""

    def build(context, builder, signature, values):
        builder.store(values[2], _place(context, builder, signature.args[0], *values[:2]), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), build


def _chosen(predicate):
    """As min and max, but numba compiles nothing for it."""

    @intrinsic
    def chosen(_context, a, b):
        wider = a if a.bitwidth >= b.bitwidth else b

        def build(context, builder, signature, values):
            kinds = zip(values, signature.args, strict=True)
            first, second = (context.cast(builder, value, kind, wider) for value, kind in kinds)
            return builder.select(builder.icmp_signed(predicate, first, second), first, second)

        return wider(a, b), build

    return chosen


smaller = _chosen("<")
"""The smaller of two signed integers."""
larger = _chosen(">")
"""The larger of two signed integers."""


@inner_loop
def put_tail(data, start, end, word):
    """Write a word's bytes to those from ``start`` up to ``end``; zeros after the eighth."""
    for i in range(start, end):
        data[i] = np.uint8(word & U(255))
        word >>= U(8)
