"""Operations on sparse matrices in CSR form."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse

from laconic.lab._types import CSR, Array


def csr(matrix: Any) -> CSR:
    """Any real matrix as a float64 CSR array; not copied if it is one already."""
    return cast("CSR", scipy.sparse.csr_array(matrix, dtype=np.float64))


def narrow(matrix: CSR) -> CSR:
    """The same matrix with 32-bit indices, where they fit: products then read a third less memory."""
    if max(matrix.nnz, *matrix.shape) >= 2**31:
        return matrix
    parts = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return cast("CSR", scipy.sparse.csr_array(parts, shape=matrix.shape, copy=False))


def with_values(matrix: CSR, values: Array) -> CSR:
    """The same pattern of entries, with other values."""
    parts = (values, matrix.indices, matrix.indptr)
    return cast("CSR", scipy.sparse.csr_array(parts, shape=matrix.shape, copy=False))


def row_block(matrix: CSR, start: int, stop: int) -> CSR:
    """Rows start to stop, without copying their entries."""
    first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
    block = scipy.sparse.csr_array((stop - start, matrix.shape[1]), dtype=np.float64)
    # Given to the constructor, short views of long arrays would be copied.
    block.data, block.indices = matrix.data[first:last], matrix.indices[first:last]
    block.indptr = matrix.indptr[start : stop + 1] - matrix.indptr[start]
    return block


def spread(matrix: CSR, per_row: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One value a row as one value a stored entry."""
    return np.repeat(per_row, np.diff(matrix.indptr).astype(np.int64))


def times(matrix: Any, dense: Array) -> Array:
    """Sparse times dense, (M, N) by (N,) or (N, R).

    scipy adds up the stored entries of a row in their order, for every column alike, so a column of
    the result does not depend on the other columns: not on their values, nor on their number.
    """
    return cast("Array", matrix @ np.ascontiguousarray(dense))
