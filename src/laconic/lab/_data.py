"""Reading and checking of data: LibSVM files, arrays, labels, and the split over nodes."""

import bz2
import gzip
import operator
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import scipy.sparse
import torch
from sklearn.datasets import load_svmlight_file

from laconic.lab._sparse import csr, narrow
from laconic.lab._types import CSR, Array

Matrix = Any  # a 2-D numpy array, scipy sparse matrix or torch tensor: no common static type exists


_LARGEST = 1e150
_MOST_COLUMNS = 20_000_000


class DataError(ValueError):
    """Data, or a way of splitting it, that a problem cannot be made of. One line, remedy included."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name in front of any ``DataError`` that is raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error.__cause__


def load_libsvm(path: str | os.PathLike[str]) -> tuple[CSR, Array]:
    """Read a LibSVM (svmlight) text file, ``.gz`` and ``.bz2`` included.

    Indices may start at 0 or at 1: they are taken to start at 1 where no line uses index 0.

    Args:
        path: the file; one line a row, ``label index:value index:value ...``, indices ascending.

    Returns:
        The rows as a float64 CSR array (N, d), and the labels, float64 (N,).

    Raises:
        DataError: the file is missing, unreadable, empty, malformed (the line is named) or not finite.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise DataError(
            f"{file} {what}; pass the path of a LibSVM text file"
            " (https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/)"
        )
    try:
        X, y = load_svmlight_file(os.fspath(file), dtype=np.float64, zero_based="auto")
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{file}, {_first_bad_line(file) or f'not LibSVM text: {_one_line(error)}'}"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({_one_line(error)}); fetch it again") from error
    if X.shape[1] > _MOST_COLUMNS:
        raise DataError(
            f"{file} uses index {X.shape[1]}, and the lab holds vectors of that length for every node;"
            f" use at most {_MOST_COLUMNS:,} columns"
        )
    with naming(file):
        return as_rows(X), as_targets(y, X.shape[0])


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


def _first_bad_line(file: Path) -> str | None:
    """The first line of a LibSVM file that cannot be read, with the reason; None if none is found.

    scikit-learn's parser, which is fast, does not count lines.
    """
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            problem = _complaint(line)
            if problem is not None:
                return f"line {number}: {problem}; correct or delete the line"
    return None


def _complaint(line: bytes) -> str | None:
    label, *features = line.split(b"#", 1)[0].split() or (b"0",)
    try:
        float(label)
    except ValueError:
        return f"the label {_excerpt(label)} is not a number"
    previous = -1
    for feature in features:
        index, _, value = feature.partition(b":")
        if index == b"qid":
            continue
        try:
            position = int(index)
            float(value)
        except ValueError:
            return f"{_excerpt(feature)} is not index:value"
        if not 0 <= position < 2**31:
            return f"the index of {_excerpt(feature)} is out of range"
        if position <= previous:
            return f"the index of {_excerpt(feature)} does not ascend (it follows {previous})"
        previous = position
    return None


def _open(file: Path) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(file, "rb"))
    if file.suffix == ".bz2":
        return cast("IO[bytes]", bz2.open(file, "rb"))
    return file.open("rb")


def _excerpt(token: bytes, limit: int = 30) -> str:
    text = token.decode("utf-8", errors="replace")
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
