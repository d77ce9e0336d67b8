"""Rows of data, split over nodes: the two products that every problem on data is made of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from laconic.lab._data import split_bounds
from laconic.lab._smoothness import Smoothness, gram, largest_gram_eigenvalue, one_thread
from laconic.lab._sparse import csr, row_block, spread, times, with_values

if TYPE_CHECKING:
    from laconic.lab._sparse import CSR

Array = npt.NDArray[np.float64]
Slopes = Callable[[Array, slice], Array]

_WORTH_A_THREAD = 500_000  # products of stored entries and points: below, starting threads costs more


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

    def node_gradients(self, points: Array, slopes: Slopes) -> Array:
        """``X_i^T s_i / N_i`` for every node and point, (R, d) -> (R, nodes, d), contiguous.

        ``slopes(X x, rows)`` gives the weights s, (N', R), of the rows named by a slice, from their products
        with x; it may overwrite the products. Nodes are independent of each other, so that threads change
        the time but no bit.
        """
        threads = min(torch.get_num_threads(), self.nodes)
        if self.matrix.nnz * len(points) < _WORTH_A_THREAD:
            threads = 1
        out = np.empty((len(points), self.nodes, self.d))

        def work(first: int, group: SplitRows) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # the setting is each thread's own
                rows = slice(self.bounds[first], self.bounds[first + group.nodes])
                weights = slopes(group.forward(points), rows)
                np.divide(
                    group.backward(weights), group.sizes[:, None], out=out[:, first : first + group.nodes]
                )

        groups = self._groups(threads)
        if threads == 1:
            work(*groups[0])
            return out
        with ThreadPoolExecutor(threads - 1) as pool:  # short-lived, so that a fork finds no thread missing
            others = [pool.submit(work, *group) for group in groups[1:]]
            work(*groups[0])
            for other in others:
                other.result()
        return out

    def _groups(self, count: int) -> list[tuple[int, SplitRows]]:
        """Consecutive nodes in ``count`` groups of about equal size, each with its first node's index."""
        if count not in self._grouped:
            cuts = [self.nodes * g // count for g in range(count + 1)]
            self._grouped[count] = [(a, self if count == 1 else self._part(a, b)) for a, b in pairwise(cuts)]
        return self._grouped[count]

    def _part(self, first: int, last: int) -> SplitRows:
        start = self.bounds[first]
        block = row_block(self.matrix, start, self.bounds[last])
        return SplitRows(block, tuple(b - start for b in self.bounds[first : last + 1]))

    @cached_property
    def _grouped(self) -> dict[int, list[tuple[int, SplitRows]]]:
        return {}

    def forward(self, points: Array) -> Array:
        """``X x`` for every point: (R, d) -> (N, R)."""
        return times(self.matrix, points.T)

    def backward(self, weights: Array) -> Array:
        """``X_i^T s_i`` for every node i and point: (N, R) -> (R, nodes, d)."""
        return times(self._scatter, weights).reshape(self.nodes, self.d, -1).transpose(2, 0, 1)

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
        matrix: Any = scipy.sparse.csc_array((nodes * d, X.shape[0]), dtype=np.float64)
        matrix.data, matrix.indices, matrix.indptr = X.data, moved, X.indptr.astype(index)
        return matrix

    @cached_property
    def _gather(self) -> CSR:
        """Ones that add up each node's rows, (nodes, N)."""
        rows = self.matrix.shape[0]
        parts = (np.ones(rows), np.arange(rows), np.array(self.bounds))
        return csr(scipy.sparse.csr_array(parts, shape=(self.nodes, rows)))
