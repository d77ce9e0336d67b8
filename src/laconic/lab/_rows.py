"""Sparse rows of data split over nodes, and the products with them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import in_threads
from laconic.lab._data import split_bounds
from laconic.lab._smoothness import Smoothness, blas_on_one_thread, gram, largest_gram_eigenvalue
from laconic.lab._sparse import csr, row_block, spread, times, with_values
from laconic.lab._types import CSR, Array

Slopes = Callable[[Array, slice], Array]

_LANES = 4  # points to a vector of the loops
_WIDEST = 16  # points to a call
_ROWS_A_CALL = 2048  # fewer are not worth a call of the loops
_CACHED_ROWS = 8192  # whose products with 16 points take a megabyte
_WORTH_A_THREAD = 500_000  # products of stored entries and points: below, starting threads costs more


def _tiles(points: Array) -> list[tuple[int, Array]]:
    """Points (R, d) as columns (d, width) for the loops, zeros filling up; each with its first point."""
    vectors = -(-len(points) // _LANES)
    count = max(1, -(-_LANES * vectors // _WIDEST))
    cuts = [_LANES * (vectors * tile // count) for tile in range(count + 1)]
    tiles = []
    for start, stop in pairwise(cuts):
        columns = np.zeros((points.shape[1], stop - start))
        part = points[start:stop]
        columns[:, : len(part)] = part.T
        tiles.append((start, columns))
    return tiles


@dataclass(frozen=True, eq=False)
class SplitRows:
    """A sparse matrix (N, d) whose rows belong to nodes, block after block.

    Every product here adds one point's terms in the order of the stored entries, whatever the number
    of points, so no point of a batch can change another's result. ``node_gradients`` goes through compiled
    loops, the others through scipy.
    """

    matrix: CSR
    bounds: tuple[int, ...]

    @classmethod
    def split(cls, matrix: CSR, nodes: int) -> Self:
        """Split contiguously, see ``split_bounds``."""
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

        ``slopes(X x, rows)`` gives the weights s, (N', R'), of the rows named by a slice, from their
        products with R' points, some of which may be zeros that fill up a vector; it may overwrite the
        products. Nodes are independent of each other, so that threads change the time but no bit.
        """
        out = np.empty((len(points), self.nodes, self.d))
        tasks = [(*tile, *group) for tile in _tiles(points) for group in self._groups]

        def work(_: int) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # the setting is each thread's own
                while True:
                    try:
                        start, columns, first, last = tasks.pop()
                    except IndexError:  # all are taken
                        return
                    sums = self._sums(columns, slopes, first, last).transpose(2, 0, 1)
                    part = out[start : start + len(sums), first:last]
                    np.divide(sums[: len(part)], self.sizes[first:last, None], out=part)

        threads = min(torch.get_num_threads(), len(tasks))
        if self.matrix.nnz * len(points) < _WORTH_A_THREAD:
            threads = 1
        in_threads(work, threads)
        return out

    def _sums(self, columns: Array, slopes: Slopes, first: int, last: int) -> Array:
        """``X_i^T s_i`` for points (d, width) and the nodes from first to last: (nodes, d, width)."""
        return dispatch(
            "sparse",
            lambda loops: self._compiled_sums(loops, columns, slopes, first, last),
            lambda: self._plain_sums(columns, slopes, first, last),
        )

    def _plain_sums(self, columns: Array, slopes: Slopes, first: int, last: int) -> Array:
        return np.stack(
            [
                times(self.blocks[i].T, slopes(times(self.blocks[i], columns), self.part(i)))
                for i in range(first, last)
            ]
        )

    def _compiled_sums(self, loops: Any, columns: Array, slopes: Slopes, first: int, last: int) -> Array:
        X = self.matrix
        vectors = loops.vectors(columns.shape[1])
        sums = np.zeros((last - first, *columns.shape))
        begin, end = self.bounds[first], self.bounds[last]
        for start in range(begin, end, _CACHED_ROWS):
            rows = slice(start, min(start + _CACHED_ROWS, end))
            matrix = (X.indptr[rows.start : rows.stop + 1], X.indices, X.data)
            products = np.empty((rows.stop - rows.start, columns.shape[1]))
            loops.forward(*matrix, columns, products, vectors)
            loops.backward(*matrix, slopes(products, rows), self._owners[rows], first, sums, vectors)
        return sums

    @cached_property
    def _groups(self) -> tuple[tuple[int, int], ...]:
        """Consecutive nodes, (first, last + 1), that together have rows enough to be worth a call."""
        cuts = [0]
        for node, bound in enumerate(self.bounds[1:-1], start=1):
            if bound - self.bounds[cuts[-1]] >= _ROWS_A_CALL:
                cuts.append(node)
        return tuple(pairwise((*cuts, self.nodes)))

    @cached_property
    def _owners(self) -> npt.NDArray[np.int64]:
        """The node of each row, (N,)."""
        return np.repeat(np.arange(self.nodes), self.sizes)

    def forward(self, points: Array) -> Array:
        """``X x`` for every point: (R, d) -> (N, R)."""
        return times(self.matrix, points.T)

    def node_means(self, values: Array) -> Array:
        """The mean over each node's rows: (N, R) -> (R, nodes)."""
        return np.ascontiguousarray(times(self._gather, values).T) / self.sizes

    @blas_on_one_thread()
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
    def _gather(self) -> CSR:
        """Ones that add up each node's rows, (nodes, N)."""
        rows = self.matrix.shape[0]
        parts = (np.ones(rows), np.arange(rows), np.array(self.bounds))
        return csr(scipy.sparse.csr_array(parts, shape=(self.nodes, rows)))
