"""Least squares, the papers' test problem under the Polyak-Lojasiewicz condition."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self, final

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch

from laconic.lab._data import Matrix, as_rows, as_targets, naming
from laconic.lab._finite_sum import FiniteSum
from laconic.lab._libsvm import load_libsvm
from laconic.lab._rows import SplitRows
from laconic.lab._smoothness import DENSE_LIMIT, Smoothness, blas_on_one_thread
from laconic.lab._sparse import times
from laconic.lab._types import Array


@final
@dataclass(frozen=True, eq=False, repr=False)
class LeastSquares(FiniteSum):
    """Least squares on rows a with targets t, split over nodes (EF21, appendix, Figures 7 and 8).

    Node i has N_i rows X_i with targets t_i and the function

        f_i(x) = (1 / (2 N_i)) |X_i x - t_i|^2,    with gradient    X_i^T (X_i x - t_i) / N_i,

    and ``f = (1/nodes) sum_i f_i`` is what is minimised. The EF21 papers print the loss without the factor
    1/2, but their code uses the gradient above and ``L = lambda_max(X^T X / N)``: with the factor, function,
    gradient and L belong together, and the papers' stepsizes are reproduced.

    Targets are used as they are (the labels of a file, unchanged). The split over nodes, dtypes and batches
    are those of ``LogisticRegression``. Build one with ``from_libsvm`` or ``from_arrays``.

    Attributes:
        rows: the rows.
        targets: the targets, float64 (N,).

    Example:
        >>> import numpy as np
        >>> problem = LeastSquares.from_arrays(np.diag([1.0, 2.0]), [1.0, 4.0], nodes=2)
        >>> problem.L_nodes, round(problem.mu, 9)
        ((1.0, 4.0), 0.5)
        >>> problem.gradients(torch.zeros(2))
        tensor([[-1.,  0.],
                [ 0., -8.]], dtype=torch.float64)
        >>> problem.minimizer()
        tensor([1., 2.], dtype=torch.float64)
    """

    rows: SplitRows
    targets: Array

    @classmethod
    def from_arrays(cls, X: Matrix, y: npt.ArrayLike | torch.Tensor, nodes: int = 20) -> Self:
        """Take rows and targets from memory.

        Args:
            X: rows (N, d): a numpy array, a scipy sparse matrix or a torch tensor. Kept as a sparse copy.
            y: targets (N,), any real numbers.
            nodes: number of nodes, from 1 to N.

        Raises:
            DataError: the data or the split is unfit; the message says why and what to do.
        """
        matrix = as_rows(X)
        return cls(SplitRows.split(matrix, nodes), as_targets(y, matrix.shape[0]))

    @classmethod
    def from_libsvm(cls, path: str | os.PathLike[str], nodes: int = 20) -> Self:
        """Read a LibSVM text file (compressed by gzip, bzip2 or xz too); otherwise as ``from_arrays``.

        Raises:
            DataError: the file is missing or malformed (the line is named), or unfit as in ``from_arrays``.
        """
        X, y = load_libsvm(path)
        with naming(path):
            return cls.from_arrays(X, y, nodes)

    def __repr__(self) -> str:
        return f"LeastSquares(d={self.d}, nodes={self.nodes}, rows={self.rows.matrix.shape[0]})"

    @property
    def d(self) -> int:
        """Dimension of x."""
        return self.rows.d

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.rows.nodes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of rows of every node."""
        return tuple(self.rows.sizes.tolist())

    @cached_property
    def smoothness(self) -> Smoothness:
        """The constants ``lambda_max(X^T X / N)``: per node, pooled, and of f."""
        return self.rows.smoothness(scale=1.0, shift=0.0)

    @cached_property
    def mu(self) -> float | None:
        """Polyak-Lojasiewicz constant of f: the smallest eigenvalue of its Hessian that is not zero.

        None if d > 4096, where the whole spectrum would take too long, or if all data are zero.
        """
        if self.d > DENSE_LIMIT:
            return None
        values = self._spectrum.values
        return float(values[0]) if len(values) else None

    @property
    def rank(self) -> int:
        """Number of eigenvalues of the Hessian of f that are not zero; ValueError if d > 4096."""
        return len(self._spectrum.values)

    def minimizer(self) -> torch.Tensor:
        """The minimiser of f of least norm, float64 (d,); ValueError if d > 4096."""
        vectors, values = self._spectrum.vectors, self._spectrum.values
        x = np.zeros(self.d)
        for _ in range(3):  # refinement: the first solution carries the Hessian's condition number
            x -= vectors @ (vectors.T @ self._gradients(x[None])[0].mean(axis=0) / values)
        return torch.from_numpy(x)

    def _node_gradient(self, i: int, point: Array) -> Array:
        block = self.rows.blocks[i]
        residual = times(block, point) - self.targets[self.rows.part(i)]
        return times(block.T, residual) / block.shape[0]

    def _losses(self, points: Array) -> Array:
        residuals = self.rows.forward(points) - self.targets[:, None]
        per_node = self.rows.node_means(np.square(residuals))
        result: Array = per_node.sum(axis=-1) / (2 * self.nodes)
        return result

    def _gradients(self, points: Array) -> Array:
        def residuals(products: Array, rows: slice) -> Array:
            return np.subtract(products, self.targets[rows, None], out=products)

        return self.rows.node_gradients(points, residuals)

    @cached_property
    @blas_on_one_thread()
    def _spectrum(self) -> "_Spectrum":
        if self.d > DENSE_LIMIT:
            raise ValueError(
                f"d = {self.d} is too large for a dense eigendecomposition (limit {DENSE_LIMIT})"
            )
        values, vectors = scipy.linalg.eigh(self.rows.mean_gram())
        # Rounding in the Gram matrix leaves zeros of about this size.
        zero = values[-1] * max(self.rows.matrix.shape) * np.finfo(np.float64).eps
        kept = values > zero
        return _Spectrum(values[kept], vectors[:, kept])


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """The nonzero eigenvalues of a Hessian, ascending (r,), and their eigenvectors (d, r)."""

    values: Array = field(repr=False)
    vectors: Array = field(repr=False)
