"""Top-k of one long row of float32 on a CPU, by loops that numba compiles at their first use.

A sample bounds the k-th magnitude from below; one pass keeps what reaches the bound; the exact k-th is then
found among these few. Where the sample misled, a histogram of all magnitudes finds the k-th instead. Which
positions come out does not depend on the sample: ``top_k_reference`` is what they must equal.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

U = np.uint64
_OPTIONS = {"nogil": True, "cache": True, "boundscheck": False}
_LANES = 64
_CLEAR_SIGN = np.int32(0x7FFFFFFF)


@intrinsic
def _reaching(_context, bits, _start, _bound):
    """A word whose bit j says, for 64 places, whether the magnitude at start + j reaches the bound."""

    def build(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        lane, lanes = ir.IntType(32), ir.VectorType(ir.IntType(32), _LANES)
        place = builder.bitcast(builder.gep(array.data, [values[1]]), lanes.as_pointer())
        magnitudes = builder.load(place, align=4)
        magnitudes = builder.and_(magnitudes, ir.Constant(lanes, [0x7FFFFFFF] * _LANES))
        first = builder.insert_element(ir.Constant(lanes, ir.Undefined), values[2], ir.Constant(lane, 0))
        zeros = ir.Constant(ir.VectorType(lane, _LANES), [0] * _LANES)
        bounds = builder.shuffle_vector(first, first, zeros)
        return builder.bitcast(builder.icmp_signed(">=", magnitudes, bounds), ir.IntType(64))

    return types.uint64(bits, types.int64, types.int32), build


@intrinsic
def _trailing_zeros(_context, _word):
    """The place of the lowest one; the word must not be 0."""

    def build(_context, builder, _signature, values):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64), ir.IntType(1)])
        count = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i64")
        return builder.call(count, [values[0], ir.Constant(ir.IntType(1), 1)])

    return types.int64(types.uint64), build


@njit(**_OPTIONS)
def sample(bits, stride, out):
    """Magnitudes at one place of every stretch of ``stride``, by a fixed mixing of the stretch's number."""
    for i in range(out.size):
        mixed = U(i + 1) * U(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> U(29))) * U(0xBF58476D1CE4E5B9)
        out[i] = bits[i * stride + np.int64((mixed >> U(33)) % U(stride))] & _CLEAR_SIGN


@njit(**_OPTIONS)
def collect(bits, bound, positions):
    """Positions of all magnitudes >= ``bound``, ascending; their number, or -1 if they do not fit."""
    count = 0
    room = positions.size - _LANES
    whole = bits.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        word = _reaching(bits, start, bound)
        if count > room:
            return -1
        while word != U(0):
            positions[count] = start + _trailing_zeros(word)
            count += 1
            word &= word - U(1)
    if count > room:
        return -1
    for i in range(whole, bits.size):
        if bits[i] & _CLEAR_SIGN >= bound:
            positions[count] = i
            count += 1
    return count


@njit(**_OPTIONS)
def kth_magnitude(magnitudes, k):
    """The k-th largest of non-negative int32, and how many equal to it are among the k largest."""
    prefix, known, left = np.int32(0), np.int32(0), k
    for shift, width in ((20, 11), (10, 10), (0, 10)):
        bins = np.zeros((4, 1 << width), np.int64)
        for i in range(magnitudes.size):
            # Four tables, so that equal neighbours do not wait for each other's count.
            magnitude = magnitudes[i] & _CLEAR_SIGN
            if magnitude & known == prefix:
                bins[i & 3, (magnitude >> shift) & ((1 << width) - 1)] += 1
        bin_ = (1 << width) - 1
        while True:
            found = bins[0, bin_] + bins[1, bin_] + bins[2, bin_] + bins[3, bin_]
            if found >= left:
                break
            left -= found
            bin_ -= 1
        prefix |= np.int32(bin_ << shift)
        known |= np.int32(((1 << width) - 1) << shift)
    return prefix, left


@njit(**_OPTIONS)
def gather(bits, positions, count, out):
    """Magnitudes at the first ``count`` positions."""
    for i in range(count):
        out[i] = bits[positions[i]] & _CLEAR_SIGN


@njit(**_OPTIONS)
def keep(positions, magnitudes, count, kth, ties, out):
    """Of candidates in ascending order those above the k-th magnitude, and the first ``ties`` equal to it."""
    written = 0
    for i in range(count):
        magnitude = magnitudes[i]
        tied = magnitude == kth
        if magnitude > kth or (tied and ties > 0):
            out[written] = positions[i]
            written += 1
            ties -= tied


@njit(**_OPTIONS)
def keep_of_all(bits, kth, ties, out):
    """As :func:`keep`, of all positions."""
    written = 0
    whole = bits.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        word = _reaching(bits, start, kth)
        while word != U(0):
            i = start + _trailing_zeros(word)
            word &= word - U(1)
            tied = bits[i] & _CLEAR_SIGN == kth
            if not tied or ties > 0:
                out[written] = i
                written += 1
                ties -= tied
    for i in range(whole, bits.size):
        magnitude = bits[i] & _CLEAR_SIGN
        tied = magnitude == kth
        if magnitude > kth or (tied and ties > 0):
            out[written] = i
            written += 1
            ties -= tied
