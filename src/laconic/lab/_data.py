"""Checks of data: matrices, labels, and the split over nodes."""

import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse
import torch

from laconic.lab._sparse import csr, narrow
from laconic.lab._types import CSR, Array

Matrix = Any  # a 2-D numpy array, scipy sparse matrix or torch tensor: no common static type exists


_LARGEST = 1e150


class DataError(ValueError):
    """Data, or a way of splitting it, that a problem cannot be made of. One line, remedy included."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name in front of any ``DataError`` that is raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error.__cause__


def as_rows(X: Matrix) -> CSR:
    """A matrix (N, d) as a canonical float64 CSR array (rows sorted, no duplicates).

    Raises:
        DataError: X is not two-dimensional, is empty, complex, or has a value that is not finite.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        if X.layout != torch.strided:
            X = X.to_sparse_coo().coalesce()
            X = scipy.sparse.coo_array((X.values().numpy(), X.indices().numpy()), shape=tuple(X.shape))
    matrix: Any = X if scipy.sparse.issparse(X) else np.asarray(X)
    if matrix.dtype.kind not in "biuf" or len(matrix.shape) != 2:
        raise DataError(
            f"the rows must be a real matrix (N, d), got {matrix.dtype} of shape {tuple(matrix.shape)};"
            " pass a two-dimensional numpy array, scipy sparse matrix or torch tensor"
        )
    if 0 in matrix.shape:
        raise DataError(
            f"there is no data: the matrix has shape {tuple(matrix.shape)};"
            " pass at least one row and one column"
        )
    rows = csr(matrix).copy()  # what the caller does to X later is no business of ours
    rows.sum_duplicates()
    bad = ~np.isfinite(rows.data)
    if bad.any():
        k = int(bad.argmax())
        row = int(np.searchsorted(rows.indptr, k, side="right")) - 1
        raise DataError(
            f"row {row}, column {int(rows.indices[k])} (both counted from 0) is {rows.data[k]};"
            " remove the row or replace the value"
        )
    if rows.nnz and abs(rows.data).max() > _LARGEST:
        raise DataError(
            f"the data hold {abs(rows.data).max():.3g}, whose square is not a number that can be worked with;"
            " scale the columns first"
        )
    return narrow(rows)


def as_targets(y: object, rows: int) -> Array:
    """Labels or targets as a float64 array (rows,).

    Raises:
        DataError: y is not a real vector of this length, or has a value that is not finite.
    """
    array = np.asarray(y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y)
    if array.dtype.kind not in "biuf" or array.shape != (rows,):
        raise DataError(
            f"there must be one real label for each of the {rows} rows,"
            f" got {array.dtype} of shape {array.shape}"
        )
    targets = array.astype(np.float64)
    bad = ~np.isfinite(targets)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"the label of row {row} (counted from 0) is {targets[row]}; remove the row")
    return targets


def as_signs(y: Array) -> Array:
    """Labels of exactly two classes as -1 (the smaller) and +1 (the larger).

    Raises:
        DataError: there are not exactly two classes.
    """
    classes = np.unique(y)
    if len(classes) != 2:
        found = ", ".join(f"{c:g}" for c in classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise DataError(
            f"logistic regression needs labels of exactly two classes, found {len(classes)}: {found};"
            " select or merge classes, or use LeastSquares, which takes any labels"
        )
    return np.where(y == classes[1], 1.0, -1.0)


def split_bounds(rows: int, nodes: int) -> tuple[int, ...]:
    """Bounds of the nodes' contiguous blocks of rows, nodes + 1 numbers.

    The first nodes - 1 blocks have ``rows // nodes`` rows; the last takes what is left (EF21, Section 5).

    Raises:
        DataError: nodes < 1, or more nodes than rows.
    """
    nodes = operator.index(nodes)
    if nodes < 1:
        raise DataError(f"nodes must be at least 1, got {nodes}")
    if nodes > rows:
        raise DataError(f"{nodes} nodes cannot share {rows} rows; pass nodes={rows} or fewer")
    return (*range(0, nodes * (rows // nodes), rows // nodes), rows)
