"""Intrinsics for numba: vector comparisons, bit counts, bit casts, raw pointers, prefetching.

Vectors of 64 lanes are lowered by LLVM to what the processor has, so nothing here names an instruction set.
A change here reaches compiled code on disk only when the files that use it change too: delete their
``__pycache__``.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import operator

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 64
_AHEAD = 4096
"""Bytes by which reading runs ahead of a loop."""
_ASKS = not get_host_cpu_name().startswith("znver")
"""Whether to prefetch: an Intel Xeon reads 1.5 times as fast with it, an AMD EPYC 1.3 times without."""
_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def never_inlined(_context):
    """Compile the function that calls this once, not anew into each of its callers: that takes seconds."""
    return types.void(), _attribute("noinline")


@intrinsic
def always_inlined(_context):
    """Compile the function that calls this into each of its callers."""
    return types.void(), _attribute("alwaysinline")


def _attribute(name):
    def build(context, builder, _signature, _values):
        builder.function.attributes.add(name)
        return context.get_dummy_value()

    return build


def _splat(builder, value, lanes):
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, first, zeros)


class Floats(types.Type):
    """A vector of float32 or float64 in registers; arithmetic goes lane by lane."""

    def __init__(self, width, lanes):
        self.width, self.lanes = width, lanes
        super().__init__(f"{lanes} float{width}")


def _vector(floats):
    return ir.VectorType(ir.DoubleType() if floats.width == 64 else ir.FloatType(), floats.lanes)


@register_model(Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager, floats):
        super().__init__(manager, floats, _vector(floats))


def _lane_by_lane(symbol, instruction):
    @type_callable(symbol)
    def _typed(_context):
        def typer(a, b):
            return a if isinstance(a, Floats) and a == b else None

        return typer

    @lower_builtin(symbol, Floats, Floats)
    def _lowered(_context, builder, _signature, values):
        return getattr(builder, instruction)(*values)


_lane_by_lane(operator.add, "fadd")
_lane_by_lane(operator.sub, "fsub")
_lane_by_lane(operator.mul, "fmul")
_lane_by_lane(operator.truediv, "fdiv")


def load(lanes):
    """``function(address, index, like)``: as many floats of an array, as wide as the patterns ``like``."""

    @intrinsic
    def floats(_context, _address, _index, like):
        kind = Floats(like.dtype.bitwidth, lanes)

        def build(_context, builder, _signature, values):
            place = _element(builder, values[0], values[1], _vector(kind))
            return builder.load(place, align=kind.width // 8)

        return kind(types.int64, types.int64, like), build

    return floats


def load_16(lanes):
    """As ``load``, of 16-bit numbers, which become the upper half of a float32: exact for bfloat16."""

    @intrinsic
    def floats(_context, _address, _index, like):
        kind = Floats(like.dtype.bitwidth, lanes)

        def build(_context, builder, _signature, values):
            place = _element(builder, values[0], values[1], ir.VectorType(ir.IntType(16), lanes))
            wide = ir.VectorType(ir.IntType(kind.width), lanes)
            bits = builder.zext(builder.load(place, align=2), wide)
            return builder.bitcast(
                builder.shl(bits, ir.Constant(wide, [kind.width // 2] * lanes)), _vector(kind)
            )

        return kind(types.int64, types.int64, like), build

    return floats


def load_one(lanes):
    """As ``load``, of one number for all lanes."""

    @intrinsic
    def floats(_context, _address, _index, like):
        kind = Floats(like.dtype.bitwidth, lanes)

        def build(_context, builder, _signature, values):
            place = builder.inttoptr(values[0], _vector(kind).element.as_pointer())
            return _splat(builder, builder.load(builder.gep(place, [values[1]])), lanes)

        return kind(types.int64, types.int64, like), build

    return floats


@intrinsic
def root(_context, floats):
    """The square root of each lane, correctly rounded."""

    def build(_context, builder, _signature, values):
        row = values[0].type
        name = f"llvm.sqrt.v{floats.lanes}f{floats.width}"
        kind = ir.FunctionType(row, [row])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)

    return floats(floats), build


@intrinsic
def wide_zeros(_context, _like):
    """64 zeros in float64."""
    kind = Floats(64, LANES)

    def build(_context, _builder, _signature, _values):
        return ir.Constant(_vector(kind), [0.0] * LANES)

    return kind(types.int64), build


@intrinsic
def plus_squares(_context, total, floats):
    """``total + floats * floats``, in total's float64, each rounded by itself."""

    def build(_context, builder, _signature, values):
        x = values[1]
        if floats.width < total.width:
            x = builder.fpext(x, values[0].type)
        return builder.fadd(values[0], builder.fmul(x, x))

    return total(total, floats), build


@intrinsic
def folded_halves(_context, _floats):
    """The sum of all lanes: lane i takes lane i + half of them, down to one."""

    def build(_context, builder, _signature, values):
        (row,) = values
        while row.type.count > 1:
            half = row.type.count // 2
            undefined = ir.Constant(row.type, ir.Undefined)
            low, high = (
                builder.shuffle_vector(
                    row, undefined, ir.Constant(ir.VectorType(_I32, half), list(range(first, first + half)))
                )
                for first in (0, half)
            )
            row = builder.fadd(low, high)
        return builder.extract_element(row, ir.Constant(_I32, 0))

    return types.float64(_floats), build


@intrinsic
def store(_context, floats, _address, _index):
    """Write floats into an array, from ``index`` on."""

    def build(context, builder, _signature, values):
        place = _element(builder, values[1], values[2], values[0].type)
        builder.store(values[0], place, align=floats.width // 8)
        return context.get_dummy_value()

    return types.void(floats, types.int64, types.int64), build


@intrinsic
def stream(_context, floats, _address, _index):
    """As ``store``, past the caches, to a multiple of 64 bytes."""

    def build(context, builder, _signature, values):
        place = _element(builder, values[1], values[2], values[0].type)
        written = builder.store(values[0], place, align=64)
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
        return context.get_dummy_value()

    return types.void(floats, types.int64, types.int64), build


@intrinsic
def fence(_context):
    """Streamed numbers are written before anything that follows."""

    def build(context, builder, _signature, _values):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), build


def _element(builder, address, index, vector):
    start = builder.inttoptr(address, vector.element.as_pointer())
    return builder.bitcast(builder.gep(start, [index]), vector.as_pointer())


@intrinsic
def pattern(_context, floats):
    """The bit pattern of the first lane, int32 or int64."""
    kind = types.int64 if floats.width == 64 else types.int32

    def build(context, builder, _signature, values):
        first = builder.extract_element(values[0], ir.Constant(_I32, 0))
        return builder.bitcast(first, context.get_value_type(kind))

    return kind(floats), build


@intrinsic
def reach(_context, floats, _bound):
    """A word whose bit j says whether the magnitude in lane j is >= bound >= 0."""

    def build(_context, builder, _signature, values):
        row = ir.VectorType(ir.IntType(floats.width), floats.lanes)
        return _reach(builder, builder.bitcast(values[0], row), values[1])

    return types.uint64(floats, types.int64), build


def _reach(builder, patterns, bound):
    row = patterns.type
    clear = ir.Constant(row, [(1 << (row.element.width - 1)) - 1] * row.count)
    bound = bound if row.element == _I64 else builder.trunc(bound, row.element)
    word = builder.icmp_signed(">=", builder.and_(patterns, clear), _splat(builder, bound, row.count))
    word = builder.bitcast(word, ir.IntType(row.count))
    return word if row.count == LANES else builder.zext(word, _I64)


def _reaching(lanes):
    @intrinsic
    def word(_context, bits, _start, _bound):
        def build(context, builder, signature, values):
            kind = signature.args[0]
            row = ir.VectorType(ir.IntType(kind.dtype.bitwidth), lanes)
            data = context.make_array(kind)(context, builder, values[0]).data
            place = builder.bitcast(builder.gep(data, [values[1]]), row.as_pointer())
            return _reach(builder, builder.load(place, align=kind.dtype.bitwidth // 8), values[2])

        return types.uint64(bits, types.int64, types.int64), build

    return word


reaching = _reaching(LANES)
"""As ``reach``, of the 64 patterns of an array from ``start`` on."""
reaching_32 = _reaching(32)
"""As ``reaching``, of 32 patterns."""


@intrinsic
def top(_context, bits):
    """The largest magnitude that patterns of this dtype hold: all ones but the sign."""

    def build(_context, _builder, signature, _values):
        return ir.Constant(_I64, (1 << (signature.args[0].dtype.bitwidth - 1)) - 1)

    return types.int64(bits), build


@intrinsic
def bits_of(_context, number):
    """The bit pattern of a float32 or float64."""
    pattern = types.int64 if number.bitwidth == 64 else types.int32
    return pattern(number), _cast


@intrinsic
def float_of(_context, pattern):
    """The float32 or float64 of a bit pattern, int32 or int64."""
    number = types.float64 if pattern.bitwidth == 64 else types.float32
    return number(pattern), _cast


def _cast(context, builder, signature, values):
    return builder.bitcast(values[0], context.get_value_type(signature.return_type))


@intrinsic
def floats_at(_context, _address, bits):
    """A pointer to the floats at an address, as wide as the elements of an array of bit patterns."""
    number = types.float64 if bits.dtype.bitwidth == 64 else types.float32
    return types.CPointer(number)(types.int64, bits), _pointer


def _pointer(context, builder, signature, values):
    return builder.inttoptr(values[0], context.get_value_type(signature.return_type))


def _prefetch(context, builder, kind, array, index, lines):
    byte = ir.IntType(8)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte.as_pointer(), _I32, _I32, _I32]),
        "llvm.prefetch.p0i8",
    )
    data = context.make_array(kind)(context, builder, array).data
    place = builder.bitcast(builder.gep(data, [index]), byte.as_pointer())
    for line in lines:
        address = builder.gep(place, [ir.Constant(_I64, line)])
        builder.call(function, [address, *(ir.Constant(_I32, number) for number in (0, 3, 1))])


@intrinsic
def ahead(_context, x, _start):
    """Ask for the 64 numbers that lie 4096 bytes after start, where that helps."""

    def build(context, builder, signature, values):
        if _ASKS:
            size = LANES * signature.args[0].dtype.bitwidth // 8
            _prefetch(context, builder, signature.args[0], *values, range(_AHEAD, _AHEAD + size, 64))
        return context.get_dummy_value()

    return types.void(x, types.int64), build


def _call(builder, name, *arguments):
    kind = ir.FunctionType(_I64, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def trailing_zeros(_context, _word):
    """The place of the lowest one; 64 where there is none."""

    def build(_context, builder, _signature, values):
        return _call(builder, "llvm.cttz.i64", values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic
def leading_zeros(_context, _word):
    """How many zeros stand above the highest one; 64 where there is none."""

    def build(_context, builder, _signature, values):
        return _call(builder, "llvm.ctlz.i64", values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@intrinsic
def ones(_context, _word):
    """How many bits are one."""

    def build(_context, builder, _signature, values):
        return _call(builder, "llvm.ctpop.i64", values[0])

    return types.int64(types.uint64), build


@intrinsic
def at_address(_context, _address, _index, like):
    """Element ``index`` of an array that starts at an address and has the dtype of ``like``."""

    def build(context, builder, signature, values):
        element = context.get_value_type(signature.args[2].dtype)
        data = builder.inttoptr(values[0], element.as_pointer())
        return builder.load(builder.gep(data, [values[1]]))

    return like.dtype(types.int64, types.int64, like), build


@intrinsic
def brain(_context, value):
    """The bits of a float32 or float64, rounded to bfloat16 (nearest, ties to even), as int16."""

    def build(_context, builder, _signature, values):
        number = values[0]
        if number.type == ir.DoubleType():
            number = builder.fptrunc(number, ir.FloatType())
        bits = builder.bitcast(number, _I32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(_I32, 0x7FFF)), odd)
        rounded = builder.lshr(rounded, ir.Constant(_I32, 16))
        nan = builder.fcmp_unordered("uno", number, number)
        rounded = builder.select(nan, ir.Constant(_I32, 0x7FC0), rounded)
        return builder.trunc(rounded, ir.IntType(16))

    return types.int16(value), build
