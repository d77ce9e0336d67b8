"""Sparse rows times several points at once, by loops that numba compiles at their first use.

A row's products with some points are as many sums, which stay in the processor's vector registers while the
row's entries pass by; scipy writes them to memory after every entry. Each sum takes its terms in the order of
the entries, multiplied first and then added, so every bit is scipy's, and that of one point alone.

The points go by vectors of four. How many vectors is a matter of types, as the registers must be known when
the loops are compiled: it is the length of a tuple, ``vectors(width)``.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from laconic.kernels.cpu._jit import loop

LANES = 4  # to a vector; wider ones are spilled where their width is no power of two
WIDEST = 16

_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)


def vectors(width):
    """The tuple that says for how many points, a multiple of ``LANES``, the loops are."""
    return (0,) * (width // LANES)


@loop
def forward(indptr, indices, data, points, products, vectors):
    """Write ``X x`` for every row: points (d, width), products (rows, width), both contiguous."""
    for row in range(products.shape[0]):
        _multiply(indptr[row], indptr[row + 1], indices, data, points, products, row, vectors)


@loop
def backward(indptr, indices, data, weights, owners, first, sums, vectors):
    """Add ``X_i^T s_i`` to sums (nodes, d, width) for the nodes i from ``first`` on.

    Weights s are (rows, width), owners (rows,) says of which node a row is; all arrays are contiguous.
    """
    d = sums.shape[1]
    for row in range(weights.shape[0]):
        place = (owners[row] - first) * d
        _spread(indptr[row], indptr[row + 1], indices, data, weights, row, sums, place, vectors)


@intrinsic
def _multiply(_context, _first, _last, indices, data, points, products, _row, vectors):
    def build(context, builder, signature, values):
        *matrix, x, out = _starts(context, builder, signature, values, (2, 3, 4, 5))
        zero = _VECTOR([0.0] * LANES)
        totals = [cgutils.alloca_once(builder, _VECTOR) for _ in range(vectors.count)]
        for total in totals:
            builder.store(zero, total)
        for column, value in _entries(builder, values[0], values[1], *matrix):
            for total, address in zip(totals, _addresses(builder, x, column, vectors), strict=True):
                term = builder.fmul(value, builder.load(address, align=8))
                builder.store(builder.fadd(builder.load(total), term), total)
        for total, address in zip(totals, _addresses(builder, out, values[6], vectors), strict=True):
            builder.store(builder.load(total), address, align=8)
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, n, indices, data, points, products, n, vectors), build


@intrinsic
def _spread(_context, _first, _last, indices, data, weights, _row, sums, _place, vectors):
    def build(context, builder, signature, values):
        *matrix, s, out = _starts(context, builder, signature, values, (2, 3, 4, 6))
        weight = [builder.load(a, align=8) for a in _addresses(builder, s, values[5], vectors)]
        for column, value in _entries(builder, values[0], values[1], *matrix):
            row = builder.add(values[7], column)
            for part, address in zip(weight, _addresses(builder, out, row, vectors), strict=True):
                total = builder.fadd(builder.load(address, align=8), builder.fmul(value, part))
                builder.store(total, address, align=8)
        return context.get_dummy_value()

    n = types.int64
    return types.void(n, n, indices, data, weights, n, sums, n, vectors), build


def _starts(context, builder, signature, values, numbers):
    """Where the arrays among the arguments begin."""
    return [context.make_array(signature.args[k])(context, builder, values[k]).data for k in numbers]


def _addresses(builder, start, row, vectors):
    """Where the vectors of a row of an array (..., width) stand."""
    first = builder.mul(row, _INDEX(LANES * vectors.count))
    for vector in range(vectors.count):
        address = builder.gep(start, [builder.add(first, _INDEX(LANES * vector))])
        yield builder.bitcast(address, _VECTOR.as_pointer())


def _entries(builder, first, last, indices, data):
    """A loop over a row's entries: the column, and the value in all lanes."""
    with cgutils.for_range_slice(builder, first, last, _INDEX(1)) as (entry, _):
        column = builder.sext(builder.load(builder.gep(indices, [entry])), _INDEX)
        one = builder.insert_element(
            _VECTOR(ir.Undefined), builder.load(builder.gep(data, [entry])), _INDEX(0)
        )
        zeros = ir.VectorType(ir.IntType(32), LANES)([0] * LANES)
        yield column, builder.shuffle_vector(one, one, zeros)
