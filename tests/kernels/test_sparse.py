"""The compiled products of sparse rows, held against scipy's."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.kernels.cpu import sparse as loops
from laconic.lab import LogisticRegression
from laconic.lab._sparse import csr, row_block, times

WIDTHS = range(loops.LANES, loops.WIDEST + 1, loops.LANES)


def random_rows(rows: int, d: int, density: float, seed: int):
    rng = np.random.default_rng(seed)
    return csr(rng.standard_normal((rows, d)) * (rng.random((rows, d)) < density))


@given(
    rows=st.integers(1, 40),
    d=st.integers(1, 30),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    width=st.sampled_from(list(WIDTHS)),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_scipys(rows, d, density, width, seed):
    X = random_rows(rows, d, density, seed)
    rng = np.random.default_rng(seed + 1)
    points, weights = rng.standard_normal((d, width)), rng.standard_normal((rows, width))
    vectors = loops.vectors(width)
    products = np.full((rows, width), np.nan)
    loops.forward(X.indptr, X.indices, X.data, points, products, vectors)
    np.testing.assert_array_equal(products, times(X, points))
    # Two nodes, numbered from 5, and sums that are added to.
    owners = np.repeat([5, 6], [rows // 2, rows - rows // 2])
    sums = np.zeros((2, d, width))
    for _ in range(2):
        loops.backward(X.indptr, X.indices, X.data, weights, owners, 5, sums, vectors)
    for node in range(2):
        part = slice(0, rows // 2) if node == 0 else slice(rows // 2, rows)
        block = row_block(X, part.start, part.stop)
        twice = scipy.sparse.vstack([block, block])
        expected = times(csr(twice).T, np.vstack([weights[part], weights[part]]))
        np.testing.assert_array_equal(sums[node], expected)


def test_indices_of_64_bits():
    X = random_rows(7, 5, 0.5, 0)
    points = np.random.default_rng(1).standard_normal((5, 4))
    products = np.empty((7, 4))
    wide = (X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data)
    loops.forward(*wide, points, products, loops.vectors(4))
    np.testing.assert_array_equal(products, times(X, points))


@pytest.mark.parametrize("nodes", [1, 3, 50])
@pytest.mark.parametrize("points", [1, 4, 5, 16, 17, 33])
def test_gradients_are_those_of_single_nodes(nodes, points, monkeypatch):
    """However points go into vectors, rows into calls, and nodes into groups."""
    monkeypatch.setattr("laconic.lab._rows._ROWS_A_CALL", 40)
    monkeypatch.setattr("laconic.lab._rows._CACHED_ROWS", 32)
    rng = np.random.default_rng(0)
    X = random_rows(211, 9, 0.4, 3)
    problem = LogisticRegression.from_arrays(X, rng.integers(0, 2, 211), nodes=nodes)
    x = torch.from_numpy(rng.standard_normal((points, 9)))
    batch = problem.gradients(x)
    for r in (0, points - 1):
        for i in (0, nodes // 2, nodes - 1):
            torch.testing.assert_close(batch[r, i], problem.node_gradient(i, x[r]), rtol=1e-13, atol=1e-16)
        torch.testing.assert_close(batch[r], problem.gradients(x[r]), rtol=0, atol=0)
