"""What loops over many numbers need of the processor and numba does not offer: small pieces for LLVM.

Vectors of 64 lanes are lowered by LLVM to what the processor has, so nothing here names an instruction set.

The numbers of a vector x, or of the difference x - memory, are seen as their bit patterns:

=========  =============  ==================  ===========================================
x          passed as      without memory      with memory (float32; float64 for float64)
=========  =============  ==================  ===========================================
float32    int32          its bits            bits of fl(x - memory)
float64    int64          its bits            bits of fl(x - memory)
bfloat16   int16          its bits << 16      bits of fl(x - memory), x widened exactly
float16    uint16         its bits << 16      bits of fl(x - memory), x widened exactly
=========  =============  ==================  ===========================================

A magnitude is such a pattern without its sign. A change here reaches compiled code on disk only when the
files that use it change too: delete their ``__pycache__``.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
_AHEAD = 4096
"""Bytes by which reading runs ahead of a loop."""
_ASKS = not get_host_cpu_name().startswith("znver")
"""Whether asking helps: an Intel Xeon reads 1.5 times as fast with it, an AMD EPYC 1.3 times without."""
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _splat(builder, value, lanes):
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, first, zeros)


def _all(kind, value):
    return ir.Constant(kind, [value] * kind.count)


def _place(context, builder, kind, array, index, element):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), element.as_pointer())


def _load(context, builder, kind, array, index, element, lanes):
    vector = ir.VectorType(element, lanes)
    return builder.load(_place(context, builder, kind, array, index, vector), align=kind.dtype.bitwidth // 8)


def _widened(builder, x, brain):
    """16-bit numbers as float32, exactly; integers alone decide, so no flag of the processor matters."""
    wide = ir.VectorType(_I32, x.type.count)
    floats = ir.VectorType(ir.FloatType(), x.type.count)
    bits = builder.zext(x, wide)
    if brain:
        return builder.bitcast(builder.shl(bits, _all(wide, 16)), floats)
    sign = builder.shl(builder.and_(bits, _all(wide, 0x8000)), _all(wide, 16))
    magnitude = builder.and_(bits, _all(wide, 0x7FFF))
    shifted = builder.add(builder.shl(magnitude, _all(wide, 13)), _all(wide, 112 << 23))
    special = builder.icmp_signed(">=", magnitude, _all(wide, 0x7C00))
    shifted = builder.select(special, builder.add(shifted, _all(wide, 112 << 23)), shifted)
    small = builder.fmul(builder.sitofp(magnitude, floats), _all(floats, 2.0**-24))
    subnormal = builder.icmp_signed("<", magnitude, _all(wide, 0x0400))
    shifted = builder.select(subnormal, builder.bitcast(small, wide), shifted)
    return builder.bitcast(builder.or_(shifted, sign), floats)


def _patterns(context, builder, signature, values, lanes):
    """The bit patterns of ``lanes`` numbers; of 16-bit numbers alone, 16 bits each."""
    kind, other = signature.args[:2]
    width = kind.dtype.bitwidth
    x = _load(context, builder, kind, values[0], values[2], ir.IntType(width), lanes)
    if isinstance(other, types.NoneType):
        return x
    real = ir.DoubleType() if width == 64 else ir.FloatType()
    if width == 16:
        x = _widened(builder, x, kind.dtype.signed)
    else:
        x = builder.bitcast(x, ir.VectorType(real, lanes))
    memory = _load(context, builder, other, values[1], values[2], real, lanes)
    difference = builder.fsub(x, memory)
    return builder.bitcast(difference, ir.VectorType(_I64 if width == 64 else _I32, lanes))


def _magnitudes(context, builder, signature, values, lanes):
    patterns = _patterns(context, builder, signature, values, lanes)
    clear = (1 << (patterns.type.element.width - 1)) - 1
    return builder.and_(patterns, _all(patterns.type, clear))


def _full(builder, patterns):
    """16-bit patterns moved to the upper half of 32 bits; others as they are."""
    if patterns.type.element.width != 16:
        return patterns
    wide = ir.VectorType(_I32, patterns.type.count)
    return builder.shl(builder.zext(patterns, wide), _all(wide, 16))


@intrinsic
def apart(_context):
    """Compile the function that calls this once, not anew into each of its callers: that takes seconds."""

    def build(context, builder, _signature, _values):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def within(_context):
    """Compile the function that calls this into each of its callers: a call passes every part of an array."""

    def build(context, builder, _signature, _values):
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), build


def _reaching(lanes):
    """Of as many places: what ``reaching`` says of 64."""

    @intrinsic
    def word(_context, x, memory, _start, _bound):
        def build(context, builder, signature, values):
            magnitudes = _magnitudes(context, builder, signature, values, lanes)
            bound, width = values[3], magnitudes.type.element.width
            if width == 16:
                bound = builder.ashr(builder.add(bound, ir.Constant(_I64, 0xFFFF)), ir.Constant(_I64, 16))
            if width != 64:
                bound = builder.trunc(bound, magnitudes.type.element)
            reach = builder.icmp_signed(">=", magnitudes, _splat(builder, bound, lanes))
            reach = builder.bitcast(reach, ir.IntType(lanes))
            return reach if lanes == LANES else builder.zext(reach, _I64)

        return types.uint64(x, memory, types.int64, types.int64), build

    return word


reaching = _reaching(LANES)
"""A word whose bit j says, for 64 places, whether the magnitude at start + j is >= bound >= 0."""
reaching_32 = _reaching(32)
"""As ``reaching``, for 32 places."""


@intrinsic
def number(_context, x, memory, _index):
    """The bit pattern at one place, as int64 whose sign is the number's."""

    def build(context, builder, signature, values):
        one = _full(builder, _patterns(context, builder, signature, values, 1))
        one = builder.extract_element(one, ir.Constant(_I32, 0))
        return one if one.type == _I64 else builder.sext(one, _I64)

    return types.int64(x, memory, types.int64), build


def _prefetch(context, builder, kind, array, index, lines):
    byte = ir.IntType(8)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte.as_pointer(), _I32, _I32, _I32]),
        "llvm.prefetch.p0i8",
    )
    place = _place(context, builder, kind, array, index, byte)
    for line in lines:
        address = builder.gep(place, [ir.Constant(_I64, line)])
        builder.call(function, [address, *(ir.Constant(_I32, number) for number in (0, 3, 1))])


@intrinsic
def ahead(_context, x, memory, _start):
    """Ask for the 64 numbers that lie 4096 bytes after start, of x and of memory, where that helps."""

    def build(context, builder, signature, values):
        for kind, array in zip(signature.args[:2], values[:2], strict=True):
            if _ASKS and not isinstance(kind, types.NoneType):
                size = LANES * kind.dtype.bitwidth // 8
                _prefetch(context, builder, kind, array, values[2], range(_AHEAD, _AHEAD + size, 64))
        return context.get_dummy_value()

    return types.void(x, memory, types.int64), build


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
