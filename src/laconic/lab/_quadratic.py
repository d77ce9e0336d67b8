"""Quadratic functions, at random and from the papers' examples and counterexamples."""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
import torch

from laconic.lab._data import DataError, Matrix
from laconic.lab._finite_sum import FiniteSum
from laconic.lab._smoothness import Smoothness, blas_on_one_thread, extreme_eigenvalues, spectral_norm
from laconic.lab._sparse import csr, row_block, times
from laconic.lab._types import CSR, Array


@final
class Quadratic(FiniteSum):
    """Quadratic functions ``f_i(x) = x^T A_i x / 2 - <b_i, x> + c_i``, one per node, and f their mean.

    The matrices are kept sparse, so banded ones of d = 1000 on hundreds of nodes are cheap. They need not
    be positive semidefinite. All results are float64 tensors on the CPU; points of a batch do not
    influence each other, down to the last bit.

    Args:
        A: symmetric matrices: a tensor or array (nodes, d, d), or a sequence of scipy sparse matrices (d, d).
        b: vectors (nodes, d).
        c: constants (nodes,); zeros if None.

    Raises:
        DataError: shapes do not fit, a matrix is not symmetric, or a value is not finite.

    Example:
        >>> problem = Quadratic(torch.stack([torch.eye(2), 3 * torch.eye(2)]), torch.ones(2, 2))
        >>> problem.L, problem.mu, problem.L_nodes, problem.L_pm
        (2.0, 2.0, (1.0, 3.0), 1.0)
        >>> problem.gradients(torch.tensor([1.0, 0.0]))
        tensor([[ 0., -1.],
                [ 2., -1.]], dtype=torch.float64)
        >>> problem.minimizer()
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    def __init__(self, A: Matrix | Sequence[Matrix], b: Matrix, c: Matrix | None = None) -> None:
        self._b: Array = np.array(_numpy(b), dtype=np.float64)
        if self._b.ndim != 2 or 0 in self._b.shape:
            raise DataError(f"b must have shape (nodes, d), got {self._b.shape}")
        self._nodes: int = self._b.shape[0]
        self._d: int = self._b.shape[1]
        self._c: Array = np.zeros(self._nodes) if c is None else np.array(_numpy(c), dtype=np.float64)
        if self._c.shape != (self._nodes,):
            raise DataError(f"c must have shape ({self._nodes},) to go with b, got {self._c.shape}")
        blocks = [_numpy(block) for block in A]
        shapes = {tuple(block.shape) for block in blocks}
        if len(blocks) != self._nodes or shapes != {(self._d, self._d)}:
            raise DataError(
                f"A must be {self._nodes} matrices of shape ({self._d}, {self._d}) to go with b,"
                f" got {len(blocks)} of {sorted(shapes)}"
            )
        for name, vector in (("b", self._b), ("c", self._c)):
            if not np.isfinite(vector).all():
                raise DataError(f"{name} has a value that is not finite")
        matrices = [csr(block) for block in blocks]
        for i, matrix in enumerate(matrices):
            if not np.isfinite(matrix.data).all():
                raise DataError(f"A[{i}] has a value that is not finite")
            asymmetry = abs(matrix - matrix.T).max()
            if asymmetry > 1e-12 * abs(matrix).max():
                raise DataError(f"A[{i}] is not symmetric; pass (A + A.mT) / 2, which is the same function")
        self._stack: CSR = csr(scipy.sparse.vstack(matrices, format="csr"))
        self._stack.sum_duplicates()

    @classmethod
    def random(cls, nodes: int, d: int, mu: float = 0.1, L: float = 1.0, seed: int = 0) -> Self:
        """Strongly convex functions with the eigenvalues of every A_i in [mu, L] and their ends attained.

        Eigenvectors are uniformly distributed and b_i is standard normal, so minimisers differ between
        nodes. f is at least mu-strongly convex and at most L-smooth; ``mu`` and ``L`` give its own constants.

        Raises:
            ValueError: not ``0 < mu <= L``, or ``d < 2`` with ``mu < L``.
        """
        if not 0 < mu <= L or (d < 2 and mu < L):
            raise ValueError(f"0 < mu <= L is needed, with mu = L where d = 1; got mu={mu}, L={L}, d={d}")
        rng = np.random.default_rng(seed)
        A = np.empty((nodes, d, d))
        for block in A:
            Q, R = np.linalg.qr(rng.standard_normal((d, d)))
            Q *= np.sign(np.diag(R))
            values = rng.uniform(mu, L, d)
            values[0], values[-1] = mu, L
            block[:] = (Q * values) @ Q.T
        return cls((A + A.transpose(0, 2, 1)) / 2, rng.standard_normal((nodes, d)))

    @classmethod
    def example1(cls) -> Self:
        """Three functions in R^3 on which Top-1 without feedback diverges (On Biased Compression, Example 1).

        ``f_i(x) = <a_i, x>^2 + |x|^2 / 4`` with a = (-3, 2, 2), (2, -3, 2), (2, 2, -3). From x = (t, t, t),
        distributed gradient descent with Top-1 multiplies x by ``1 + 11 stepsize / 6`` in every round,
        though f is strongly convex with minimiser 0.

        Example:
            >>> problem = Quadratic.example1()
            >>> round(problem.L_tilde, 9), problem.gradient(torch.ones(3))
            (34.5, tensor([1.1667, 1.1667, 1.1667], dtype=torch.float64))
        """
        return cls._squares([(-3, 2, 2), (2, -3, 2), (2, 2, -3)], 0.25)

    @classmethod
    def example2(cls, d: int, d1: int) -> Self:
        """Functions on which Top-d1 without feedback diverges (On Biased Compression, Example 2).

        One node for each d1-subset of the d coordinates, ``comb(d, d1)`` in all, in lexicographic order:
        ``f_i(x) = <a_i, x>^2 + |x|^2 / 2`` with ``a_i = -b`` on the subset and ``c`` off it, where
        ``b = d2 + d2 / d1``, ``c = d1 + 1 / d2 + 1``, ``d2 = d - d1``. From x = (t, ..., t), distributed
        gradient descent with Top-d1 multiplies x by ``1 + stepsize (2 b - 1) d1 / d`` in every round. (The
        paper prints d2 + 1 for d, which is right for d1 = 1 only.)

        Raises:
            ValueError: not ``d >= 3`` and ``1 <= d1 < d / 2``.

        Example:
            >>> Quadratic.example2(5, 2).nodes
            10
        """
        if d < 3 or not 1 <= d1 < d / 2:
            raise ValueError(f"d >= 3 and 1 <= d1 < d / 2 are needed, got d={d}, d1={d1}")
        d2 = d - d1
        b, c = d2 + d2 / d1, d1 + 1 / d2 + 1
        vectors = np.full((math.comb(d, d1), d), c)
        for vector, subset in zip(vectors, combinations(range(d), d1), strict=True):
            vector[list(subset)] = -b
        return cls._squares(vectors, 0.5)

    @classmethod
    def example3(cls, vectors: npt.ArrayLike = ((1, 4), (-1, -2), (1, -2))) -> Self:
        """Functions ``f_i(x) = <v_i, x> + |x|^2 / 2`` (On Biased Compression, Example 3).

        Where the compressed v_i add up to zero and the v_i do not, distributed gradient descent without
        feedback never leaves x = 0. The default vectors do this to Top-1.

        Args:
            vectors: the v_i, (nodes, d).
        """
        v = np.array(vectors, dtype=np.float64)
        return cls([np.eye(v.shape[-1])] * len(v), -v)

    @classmethod
    def three_pc(
        cls, nodes: int = 10, d: int = 1000, heterogeneity: float = 0.8, mu: float = 1e-6, seed: int = 12345
    ) -> Self:
        """The random tridiagonal functions of the 3PC paper's experiments (arXiv 2202.00998).

        ``A_i = (nu_i / 4) tridiag(-1, 2, -1)`` with ``nu_i = 1 + heterogeneity * normal``, all shifted by the
        same multiple of I so that the smallest eigenvalue of their mean is mu, and
        ``b_i = (nu_i / 4) (-1 + heterogeneity * normal) e_1``. The authors start at ``x = sqrt(d) e_1``. With
        100 nodes and heterogeneity 6.4 this gives the published L- = 0.77 (``L``) and L+- = 6.58 (``L_pm``).

        Example:
            >>> problem = Quadratic.three_pc(nodes=100, heterogeneity=6.4)
            >>> round(problem.L, 2), round(problem.L_pm, 2)
            (0.77, 6.58)
        """
        draws = np.random.RandomState(seed).standard_normal(
            (nodes, 2)
        )  # the authors' stream: pairs, in this order
        nu = 1 + heterogeneity * draws[:, 0]
        stencil = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(d, d))
        # The stencil's eigenvalues are 2 - 2 cos(pi j / (d + 1)); a negative mean turns them round.
        first = 2 - 2 * math.cos(math.pi * (1 if nu.mean() >= 0 else d) / (d + 1))
        shift = (mu - float(nu.mean()) / 4 * first) * scipy.sparse.eye_array(d)
        b = np.zeros((nodes, d))
        b[:, 0] = nu / 4 * (-1 + heterogeneity * draws[:, 1])
        return cls([stencil * (v / 4) + shift for v in nu], b)

    @classmethod
    def _squares(cls, vectors: npt.ArrayLike, ridge: float) -> Self:
        """``f_i(x) = <a_i, x>^2 + ridge |x|^2``."""
        a = np.array(vectors, dtype=np.float64)
        A = 2 * a[:, :, None] * a[:, None, :] + 2 * ridge * np.eye(a.shape[1])
        return cls(A, np.zeros_like(a))

    def __repr__(self) -> str:
        return f"Quadratic(d={self.d}, nodes={self.nodes})"

    @property
    def d(self) -> int:
        """Dimension of x."""
        return self._d

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self._nodes

    @cached_property
    @blas_on_one_thread()
    def smoothness(self) -> Smoothness:
        """Exact constants: the spectral norms of the mean matrix and of every A_i."""
        per_node = tuple(spectral_norm(self._block(i)) for i in range(self.nodes))
        L = max(-self._ends[0], self._ends[1])
        return Smoothness(L=L, L_pooled=L, L_nodes=per_node)

    @cached_property
    @blas_on_one_thread()
    def L_plus(self) -> float:
        """The least L+ with ``(1/nodes) sum |grad f_i(x) - grad f_i(y)|^2 <= L+^2 |x - y|^2`` (3PC).

        The root of the largest eigenvalue of the mean of A_i^2; at most ``L_tilde``, and often smaller.
        """
        return math.sqrt(extreme_eigenvalues(self._mean_square)[1])

    @cached_property
    @blas_on_one_thread()
    def L_pm(self) -> float:
        """Hessian variance L+- of the 3PC and MARINA papers; 0 if all nodes have the same A_i.

        The root of the largest eigenvalue of (mean of A_i^2) - (mean of A_i)^2.
        """
        variance = csr(self._mean_square - self._mean @ self._mean)
        return math.sqrt(max(0.0, extreme_eigenvalues(variance)[1]))

    @property
    def mu(self) -> float | None:
        """Strong convexity: the smallest eigenvalue of the mean matrix, or None where it is not positive."""
        return self._ends[0] if self._ends[0] > 0 else None

    def minimizer(self) -> torch.Tensor:
        """The minimiser of f, float64 (d,).

        Raises:
            ValueError: f is not strongly convex.
        """
        if self.mu is None:
            raise ValueError(f"f has no unique minimiser: its smallest curvature is {self._ends[0]:.3g}")
        mean = scipy.sparse.csc_array(self._mean)
        return torch.from_numpy(scipy.sparse.linalg.spsolve(mean, self._b.mean(axis=0)))

    def _node_gradient(self, i: int, point: Array) -> Array:
        gradient: Array = times(self._block(i), point) - self._b[i]
        return gradient

    def _losses(self, points: Array) -> Array:
        slopes = np.ascontiguousarray(times(self._mean, points.T).T)
        values: Array = ((slopes / 2 - self._b.mean(axis=0)) * points).sum(axis=-1) + self._c.mean()
        return values

    def _gradients(self, points: Array) -> Array:
        # All matrices, one under the other, in one product: it treats every point alike.
        products = times(self._stack, points.T).reshape(self.nodes, self.d, -1)
        out = np.ascontiguousarray(products.transpose(2, 0, 1))
        out -= self._b
        return out

    def _block(self, i: int) -> CSR:
        return row_block(self._stack, i * self.d, (i + 1) * self.d)

    @cached_property
    def _mean(self) -> CSR:
        entries = self._stack.tocoo()
        total = scipy.sparse.coo_array(
            (entries.data, (entries.row % self.d, entries.col)), shape=(self.d, self.d)
        ).tocsr()
        return csr(total / self.nodes)

    @cached_property
    def _mean_square(self) -> CSR:
        return csr((self._stack.T @ self._stack) / self.nodes)

    @cached_property
    @blas_on_one_thread()
    def _ends(self) -> tuple[float, float]:
        return extreme_eigenvalues(self._mean)


def _numpy(values: Matrix) -> Any:
    """Tensors as arrays, sparse matrices as they are."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return values if scipy.sparse.issparse(values) else np.asarray(values)
