"""Rows of data, split over nodes: the two products that every problem on data is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from laconic.lab._data import split_bounds
from laconic.lab._smoothness import Smoothness, gram, largest_gram_eigenvalue, one_thread
from laconic.lab._sparse import csr, row_block, spread, times, with_values

if TYPE_CHECKING:
    from laconic.lab._sparse import CSR

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SplitRows:
    """A sparse matrix (N, d) whose rows belong to nodes, block after block.

    Every product here adds one point's terms in the order of the stored entries, whatever the number
    of points, so no point of a batch can change another's result.
    """

    matrix: CSR
    bounds: tuple[int, ...]

    @classmethod
    def split(cls, matrix: CSR, nodes: int) -> SplitRows:
        """Split contiguously, see `split_bounds`."""
        return cls(matrix, split_bounds(matrix.shape[0], nodes))

    @property
    def d(self) -> int:
        """Number of columns."""
        return self.matrix.shape[1]

    @property
    def nodes(self) -> int:
        """Number of blocks."""
        return len(self.bounds) - 1

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each node, (nodes,)."""
        return np.array([b - a for a, b in pairwise(self.bounds)], dtype=np.int64)

    def part(self, i: int) -> slice:
        """The rows of node i."""
        return slice(self.bounds[i], self.bounds[i + 1])

    @cached_property
    def blocks(self) -> tuple[CSR, ...]:
        """The matrices X_i of the nodes, sharing memory with the whole."""
        return tuple(row_block(self.matrix, start, stop) for start, stop in pairwise(self.bounds))

    def forward(self, points: Array) -> Array:
        """``X x`` for every point: (R, d) -> (N, R)."""
        return times(self.matrix, points.T)

    def backward(self, weights: Array) -> Array:
        """``X_i^T s_i / N_i`` for every node i and point: (N, R) -> (R, nodes, d), contiguous."""
        stacked = times(self._scatter, weights).reshape(self.nodes, self.d, -1)
        out = np.ascontiguousarray(stacked.transpose(2, 0, 1))
        out /= self.sizes[:, None]
        return out

    def node_means(self, values: Array) -> Array:
        """The mean over each node's rows: (N, R) -> (R, nodes)."""
        return np.ascontiguousarray(times(self._gather, values).T) / self.sizes

    @one_thread()
    def smoothness(self, scale: float, shift: float) -> Smoothness:
        """Constants of ``scale * (eigenvalue of X^T X / N) + shift``."""
        per_node = tuple(
            scale * largest_gram_eigenvalue(block) / block.shape[0] + shift for block in self.blocks
        )
        pooled = largest_gram_eigenvalue(self.matrix) / self.matrix.shape[0]
        exact = largest_gram_eigenvalue(self._weighted)
        return Smoothness(L=scale * exact + shift, L_pooled=scale * pooled + shift, L_nodes=per_node)

    def mean_gram(self) -> Array:
        """The dense mean over nodes of ``X_i^T X_i / N_i``, (d, d)."""
        return gram(self._weighted)

    @property
    def _weighted(self) -> CSR:
        """Rows scaled so that the Gram matrix is the mean over nodes of the nodes' averages."""
        scale = 1.0 / np.sqrt(self.nodes * np.repeat(self.sizes, self.sizes).astype(np.float64))
        return with_values(self.matrix, self.matrix.data * spread(self.matrix, scale))

    @cached_property
    def _scatter(self) -> Any:
        """The blocks X_i^T along a diagonal, (nodes * d, N).

        One product with it does all nodes at once. Read as compressed columns it is the matrix itself
        with the column indices moved by node * d: values and row pointers are shared, and a sweep walks
        through memory in order, with one node's d sums in the cache.
        """
        nodes, d, X = self.nodes, self.d, self.matrix
        index = np.int32 if max(nodes * d, X.nnz) < 2**31 else np.int64  # half the traffic, where they fit
        offsets = d * np.repeat(np.arange(nodes), self.sizes)
        moved = (X.indices + spread(X, offsets)).astype(index)
        parts: Any = (X.data, moved, X.indptr.astype(index))
        return scipy.sparse.csc_array(parts, shape=(nodes * d, X.shape[0]), copy=False)

    @cached_property
    def _gather(self) -> CSR:
        """Ones that add up each node's rows, (nodes, N)."""
        rows = self.matrix.shape[0]
        parts = (np.ones(rows), np.arange(rows), np.array(self.bounds))
        return csr(scipy.sparse.csr_array(parts, shape=(self.nodes, rows)))
