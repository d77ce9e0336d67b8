"""Smoothness constants of finite sums, from extreme eigenvalues."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from threadpoolctl import threadpool_limits

from laconic.lab._sparse import csr, times
from laconic.lab._types import CSR, Array

DENSE_LIMIT = 4096
"""Largest order of a matrix that is decomposed densely; beyond it Lanczos finds the ends of the spectrum."""

_NARROW = 8  # bandwidth up to which LAPACK's banded routines are worth their set-up
_SPARSE_DENSITY = 0.1  # below it a sparse Gram product beats BLAS on dense blocks
_BLOCK_ROWS = 8192


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Run BLAS and LAPACK on one thread inside; also a decorator.

    The last bits of L, hence of every stepsize, then do not depend on the number of threads. And the many
    small matrices here are slowed down by threads that wait for each other, on a busy machine fifty-fold.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@dataclass(frozen=True)
class Smoothness:
    """Smoothness constants of ``f = (1/n) sum_i f_i`` (EF21, Theorems 1 and 2).

    A function is L-smooth if its gradient is L-Lipschitz. For a logistic loss these are the usual upper
    bounds on the Hessian's norm; for quadratic functions they are its norm.

    Attributes:
        L: constant of f itself, the mean over nodes. Use this one where a theorem is asserted.
        L_pooled: the papers' convention for problems with rows of data: the constant of the average over
            all rows. It differs from ``L`` only by the last node's being a little longer than the others.
            Equal to ``L`` where there are no rows.
        L_nodes: constants L_i of the f_i, in order.

    Example:
        >>> s = Smoothness(L=2.0, L_pooled=2.0, L_nodes=(1.0, 7.0))
        >>> s.L_tilde, s.L_mean, s.L_max
        (5.0, 4.0, 7.0)
    """

    L: float
    L_pooled: float
    L_nodes: tuple[float, ...]

    @property
    def L_tilde(self) -> float:
        """Root mean square of the L_i, EF21's L tilde."""
        return math.sqrt(math.fsum(v * v for v in self.L_nodes) / len(self.L_nodes))

    @property
    def L_mean(self) -> float:
        """Arithmetic mean of the L_i, which EF21-W may use in place of L tilde (arXiv 2402.10774)."""
        return math.fsum(self.L_nodes) / len(self.L_nodes)

    @property
    def L_max(self) -> float:
        """Largest of the L_i."""
        return max(self.L_nodes)


def gram(X: CSR) -> Array:
    """The dense ``X^T X``."""
    rows, d = X.shape
    if X.nnz < _SPARSE_DENSITY * rows * d:
        return cast("Array", (X.T @ X).toarray())
    total = np.zeros((d, d))
    for start in range(0, rows, _BLOCK_ROWS):
        block = X[start : start + _BLOCK_ROWS].toarray()
        total += block.T @ block
    return total


def largest_gram_eigenvalue(X: CSR) -> float:
    """The largest eigenvalue of ``X^T X``."""
    if X.nnz == 0:
        return 0.0
    if X.shape[0] < X.shape[1]:  # X X^T has the same one and is smaller
        X = csr(X.T)
    d = X.shape[1]
    if d <= DENSE_LIMIT:
        return float(scipy.linalg.eigvalsh(gram(X), subset_by_index=(d - 1, d - 1))[0])
    operator = scipy.sparse.linalg.LinearOperator(
        (d, d), matvec=lambda v: times(X.T, times(X, v)), dtype=np.float64
    )
    return _lanczos(operator, "LA")


def extreme_eigenvalues(A: CSR) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of a sparse symmetric matrix."""
    d = A.shape[0]
    coo = A.tocoo()
    width = int(np.abs(coo.row - coo.col).max(initial=0))
    if width <= _NARROW < d:
        band = np.zeros((width + 1, d))
        for k in range(width + 1):
            band[k, : d - k] = A.diagonal(-k)
        ends = [
            scipy.linalg.eig_banded(band, lower=True, eigvals_only=True, select="i", select_range=(i, i))
            for i in (0, d - 1)
        ]
        return float(ends[0][0]), float(ends[1][0])
    if d <= DENSE_LIMIT:
        values = scipy.linalg.eigvalsh(A.toarray())
        return float(values[0]), float(values[-1])
    operator = scipy.sparse.linalg.aslinearoperator(A)
    return _lanczos(operator, "SA"), _lanczos(operator, "LA")


def spectral_norm(A: CSR) -> float:
    """The norm of a sparse symmetric matrix: its eigenvalue of largest magnitude."""
    low, high = extreme_eigenvalues(A)
    return max(-low, high)


def _lanczos(operator: Any, which: Any) -> float:
    # ARPACK starts at a random vector unless told; a fixed one makes L, hence every stepsize, repeatable.
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    values = scipy.sparse.linalg.eigsh(operator, k=1, which=which, v0=start, return_eigenvectors=False)
    return float(values[0])
