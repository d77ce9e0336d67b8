"""Logistic regression with a nonconvex regulariser, the test problem of the EF21 papers."""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Self, final

import numpy as np
import numpy.typing as npt
import torch

from laconic.lab._data import DataError, Matrix, as_rows, as_signs, as_targets, naming
from laconic.lab._finite_sum import FiniteSum
from laconic.lab._libsvm import load_libsvm
from laconic.lab._rows import SplitRows
from laconic.lab._smoothness import Smoothness
from laconic.lab._sparse import spread, times, with_values
from laconic.lab._types import Array


@final
@dataclass(frozen=True, eq=False, repr=False)
class LogisticRegression(FiniteSum):
    """Logistic regression on rows a with labels y = +-1, split over nodes (EF21, Section 5).

    Node i has N_i rows and the function

        f_i(x) = (1/N_i) sum log(1 + exp(-y <a, x>)) + regularizer * sum_j x_j^2 / (1 + x_j^2),

    and ``f = (1/nodes) sum_i f_i`` is what is minimised. Build one with ``from_libsvm`` or ``from_arrays``.

    Rows are neither shuffled nor scaled, and no intercept is added. The first nodes - 1 nodes have
    ``N // nodes`` rows each, in the given order; the last node has the rest.

    All results are float64 tensors on the CPU; ``x`` of another real dtype is upcast. A batch of R points
    costs memory in proportion to the stored entries plus N R; its points do not influence each other,
    down to the last bit.

    Attributes:
        rows: the rows, each times its label.
        regularizer: weight of the regulariser, at least 0.

    Example:
        >>> import numpy as np
        >>> problem = LogisticRegression.from_arrays(np.eye(4), [0, 1, 1, 0], nodes=2, regularizer=0.0)
        >>> problem.nodes, problem.d, problem.L
        (2, 4, 0.0625)
        >>> problem.gradients(torch.zeros(4))
        tensor([[ 0.2500, -0.2500,  0.0000,  0.0000],
                [ 0.0000,  0.0000, -0.2500,  0.2500]], dtype=torch.float64)
    """

    rows: SplitRows
    regularizer: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.regularizer) and self.regularizer >= 0):
            raise DataError(f"regularizer must be a finite number, at least 0, got {self.regularizer}")

    @classmethod
    def from_arrays(
        cls, X: Matrix, y: npt.ArrayLike | torch.Tensor, nodes: int = 20, regularizer: float = 0.1
    ) -> Self:
        """Take rows and labels from memory.

        Args:
            X: rows (N, d): a numpy array, a scipy sparse matrix or a torch tensor. Kept as a sparse copy.
            y: labels (N,) of exactly two classes: the smaller becomes -1, the larger +1.
            nodes: number of nodes, from 1 to N.
            regularizer: weight of the regulariser, at least 0.

        Raises:
            DataError: the data or the split is unfit; the message says why and what to do.
        """
        matrix = as_rows(X)
        signs = as_signs(as_targets(y, matrix.shape[0]))
        # Only y * a is ever needed, and a change of sign is exact.
        signed = with_values(matrix, matrix.data * spread(matrix, signs))
        return cls(SplitRows.split(signed, nodes), float(regularizer))

    @classmethod
    def from_libsvm(cls, path: str | os.PathLike[str], nodes: int = 20, regularizer: float = 0.1) -> Self:
        """Read a LibSVM text file (compressed by gzip, bzip2 or xz too); otherwise as ``from_arrays``.

        Raises:
            DataError: the file is missing or malformed (the line is named), or unfit as in ``from_arrays``.
        """
        X, y = load_libsvm(path)
        with naming(path):
            return cls.from_arrays(X, y, nodes, regularizer)

    def __repr__(self) -> str:
        return (
            f"LogisticRegression(d={self.d}, nodes={self.nodes}, rows={self.rows.matrix.shape[0]},"
            f" regularizer={self.regularizer:g})"
        )

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
        """Upper bounds ``lambda_max(X^T X / (4 N)) + 2 regularizer``: per node, pooled, and of f."""
        return self.rows.smoothness(scale=0.25, shift=2 * self.regularizer)

    def _node_gradient(self, i: int, point: Array) -> Array:
        block = self.rows.blocks[i]
        gradient = times(block.T, _slopes(times(block, point))) / block.shape[0]
        return gradient + self._regularizer_gradient(point)

    def _losses(self, points: Array) -> Array:
        per_node = self.rows.node_means(np.logaddexp(0.0, -self.rows.forward(points)))
        # x^2 / (1 + x^2) as a square, since x^2 itself overflows in a run that diverges.
        penalty = np.square(points / np.hypot(1.0, points)).sum(axis=-1)
        result: Array = per_node.sum(axis=-1) / self.nodes + self.regularizer * penalty
        return result

    def _gradients(self, points: Array) -> Array:
        out = self.rows.node_gradients(points, lambda margins, _: _slopes(margins))
        out += self._regularizer_gradient(points)[:, None, :]
        return out

    def _regularizer_gradient(self, points: Array) -> Array:
        return (2 * self.regularizer) * points / np.square(1.0 + points * points)


def _slopes(margins: Array) -> Array:
    """The derivative ``-1 / (1 + exp(m))`` of ``log(1 + exp(-m))``, in place.

    Accurate for every m: where exp overflows, the quotient is the zero it should be.
    """
    np.exp(margins, out=margins)
    margins += 1.0
    return np.divide(-1.0, margins, out=margins)
