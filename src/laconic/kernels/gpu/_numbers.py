"""Operations on single numbers that several kernels share: reading, magnitudes, division, signs."""
# mypy: ignore-errors
# Triton's decorators are not typed.

import triton
import triton.language as tl


@triton.jit
def widened(number):
    """float64 as it is, all else as float32."""
    if number.dtype == tl.float64:
        result = number
    elif number.dtype == tl.bfloat16:
        # The upper half of a float32 number; written so, no conversion can flush subnormal ones.
        result = (number.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        result = number.to(tl.float32)
    return result


@triton.jit
def read(x, memory, place, mask, DIFFERENCE: tl.constexpr):
    """``x`` at the places, or ``fl(x - memory)`` in memory's dtype; 0 where the mask is off."""
    number = tl.load(x + place, mask=mask, other=0.0)
    if DIFFERENCE:
        held = tl.load(memory + place, mask=mask, other=0.0)
        number = widened(number).to(held.dtype) - held
    return number


@triton.jit
def magnitude(number):
    """The bits with the sign cleared: int64 for float64, else int32; they ascend with the magnitude."""
    if number.dtype == tl.float64:
        bits = number.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    elif number.dtype == tl.float32:
        bits = number.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:
        bits = number.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    return bits


@triton.jit
def quotient(a, b):
    """``fl(a / b)``: Triton's ``/`` is correctly rounded for float64 only."""
    if a.dtype == tl.float64:  # noqa: SIM108 (Triton decides it when it compiles)
        result = a / b
    else:
        result = tl.div_rn(a, b)
    return result


@triton.jit
def signed(size, negative):
    """A magnitude with a sign. Triton's own minus subtracts from 0, which makes no negative zero."""
    return tl.where(negative, size * -1.0, size)


@triton.jit
def narrowed(number, like):
    """A finite number rounded to the nearest of another's dtype, ties to even."""
    if like.dtype == tl.bfloat16:
        # By integers, as ``widened``; NaN and infinity have to go another way.
        bits = number.to(tl.float32).to(tl.int32, bitcast=True)
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        whole = (bits & 0x7FFFFFFF) <= 0x7F800000
        upper = tl.where(whole, upper, (bits >> 16) | 0x40)
        result = upper.to(tl.int16).to(tl.bfloat16, bitcast=True)
    elif like.dtype == tl.float16:
        # By way of float32, as PyTorch rounds float64.
        result = number.to(tl.float32).to(tl.float16)
    else:
        result = number.to(like.dtype)
    return result


@triton.jit
def is_finite(number):
    """Whether a number of the accumulation dtype is neither NaN nor infinite."""
    if number.dtype == tl.float64:
        result = magnitude(number) < 0x7FF0000000000000
    else:
        result = magnitude(number) < 0x7F800000
    return result
