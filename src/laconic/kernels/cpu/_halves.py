"""16-bit numbers inside loops: bfloat16 is seen as int16, float16 as uint16."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from laconic.kernels.cpu._jit import inner_loop
from laconic.kernels.cpu._simd import always_inlined, bits_of, brain

_I32 = ir.IntType(32)
_FLOAT = ir.FloatType()


@intrinsic
def widened(_context, value):
    """A number as it is; a 16-bit one as float32, exactly."""
    real = isinstance(value, types.Float)

    def build(_context, builder, _signature, values):
        if real:
            return values[0]
        return _widened(builder, values[0], value.signed)

    return (value if real else types.float32)(value), build


def _widened(builder, x, brain):
    """Integers alone decide, so no flag of the processor matters."""
    bits = builder.zext(x, _I32)
    if brain:
        return builder.bitcast(builder.shl(bits, _I32(16)), _FLOAT)
    sign = builder.shl(builder.and_(bits, _I32(0x8000)), _I32(16))
    magnitude = builder.and_(bits, _I32(0x7FFF))
    shifted = builder.add(builder.shl(magnitude, _I32(13)), _I32(112 << 23))
    special = builder.icmp_signed(">=", magnitude, _I32(0x7C00))
    shifted = builder.select(special, builder.add(shifted, _I32(112 << 23)), shifted)
    small = builder.fmul(builder.sitofp(magnitude, _FLOAT), _FLOAT(2.0**-24))
    subnormal = builder.icmp_signed("<", magnitude, _I32(0x0400))
    shifted = builder.select(subnormal, builder.bitcast(small, _I32), shifted)
    return builder.bitcast(builder.or_(sign, shifted), _FLOAT)


@inner_loop
def half(number):
    """The bits of a number of at most 65504 rounded to float16 (nearest, ties to even), as uint16."""
    always_inlined()
    single = np.float32(number)
    bits = bits_of(single)
    magnitude = np.int32(bits & 0x7FFFFFFF)
    odd = np.int32(magnitude >> 13) & np.int32(1)
    # Another bias of the exponent, and half of the last place, whose carry into the exponent is right.
    rounded = np.int32(np.int32(magnitude - (112 << 23) + 0xFFF + odd) >> 13)
    # Below the normal range the bits count units of 2^-24; adding 2^23 rounds to a whole one.
    normal, unit, last = np.float32(2.0**-14), np.float32(2.0**24), np.float32(2.0**23)
    size = abs(single)
    small = np.int32(((size if size < normal else normal) * unit + last) - last)
    sign = np.int32(np.int32(bits >> 16) & 0x8000)
    return np.uint16((small if magnitude < np.int32(113 << 23) else rounded) | sign)


def converted(value, like):
    """A number for an array: rounded to bfloat16 or float16 where that is (u)int16, else in its dtype."""


@overload(converted)
def _converted(value, like):
    if value == like.dtype:
        return lambda value, like: value  # noqa: ARG005
    if like.dtype == types.int16:
        return lambda value, like: brain(widened(value))  # noqa: ARG005
    if like.dtype == types.uint16:
        return lambda value, like: half(widened(value))  # noqa: ARG005
    return lambda value, like: like.dtype.type(widened(value))
