"""The lab's problems: functions, gradients and constants, against independent ways to the same numbers."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels import _dispatch
from laconic.lab._data import DataError
from laconic.lab._least_squares import LeastSquares
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem
from laconic.lab._quadratic import Quadratic
from laconic.lab._smoothness import Smoothness, extreme_eigenvalues, largest_gram_eigenvalue

F64 = torch.float64


def random_data(rows, d, density, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, d)) * (rng.random((rows, d)) < density)
    y = rng.choice([3.0, 5.0], rows)
    y[:2] = 3.0, 5.0
    return X, y


def random_blocks(nodes, d, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((nodes, d, d))
    return A + A.transpose(0, 2, 1), rng.standard_normal((nodes, d)), rng.standard_normal(nodes)


def parts(X, y, nodes):
    """The split of the papers, written the plain way."""
    size = len(X) // nodes
    starts = [i * size for i in range(nodes)]
    stops = [*starts[1:], len(X)]
    return [(torch.tensor(X[a:b]), torch.tensor(y[a:b])) for a, b in zip(starts, stops, strict=True)]


def logistic_oracle(X, y, nodes, lam):
    signs = np.where(y == y.max(), 1.0, -1.0)
    return [
        lambda x, A=A, s=s: (
            -torch.nn.functional.logsigmoid(s * (A @ x)).mean() + lam * (x**2 / (1 + x**2)).sum()
        )
        for A, s in parts(X, signs, nodes)
    ]


def least_squares_oracle(X, y, nodes):
    return [lambda x, A=A, t=t: ((A @ x - t) ** 2).mean() / 2 for A, t in parts(X, y, nodes)]


def quadratic_oracle(A, b, c):
    A, b, c = map(torch.tensor, (A, b, c))
    return [lambda x, i=i: x @ A[i] @ x / 2 - b[i] @ x + c[i] for i in range(len(b))]


def cases():
    """Problems of every kind beside their functions f_i, written independently."""
    for density, as_sparse in ((1.0, False), (0.2, True)):
        X, y = random_data(47, 9, density, seed=int(10 * density))
        given_as = scipy.sparse.csr_array(X) if as_sparse else X
        name = "sparse" if as_sparse else "dense"
        for nodes in (1, 5):
            yield (
                f"logistic-{name}-{nodes}",
                LogisticRegression.from_arrays(given_as, y, nodes=nodes, regularizer=0.3),
                logistic_oracle(X, y, nodes, 0.3),
            )
            yield (
                f"squares-{name}-{nodes}",
                LeastSquares.from_arrays(given_as, y, nodes=nodes),
                least_squares_oracle(X, y, nodes),
            )
    A, b, c = random_blocks(4, 6, seed=3)
    yield "quadratic", Quadratic(torch.tensor(A), torch.tensor(b), torch.tensor(c)), quadratic_oracle(A, b, c)


CASES = [pytest.param(problem, oracle, id=name) for name, problem, oracle in cases()]
PROBLEMS = [pytest.param(problem, id=name) for name, problem, _ in cases()]


def points(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- functions


@pytest.mark.parametrize(("problem", "oracle"), CASES)
def test_loss_and_gradients_against_autograd(problem: Problem, oracle):
    assert problem.nodes == len(oracle)
    for scale in (0.1, 1.0, 10.0):
        x = points(problem.d, seed=1, scale=scale).requires_grad_()
        values = [f(x) for f in oracle]
        expected = torch.stack([torch.autograd.grad(v, x)[0] for v in values])
        torch.testing.assert_close(problem.gradients(x), expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(problem.gradient(x), expected.mean(0), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            problem.loss(x), torch.stack(values).mean().detach(), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
def test_shapes(problem, lead):
    x = points(*lead, problem.d)
    for result, tail in (
        (problem.loss(x), ()),
        (problem.gradients(x), (problem.nodes, problem.d)),
        (problem.gradient(x), (problem.d,)),
    ):
        assert result.shape == (*lead, *tail)
        assert result.dtype == F64
        assert result.is_contiguous()
        assert not result.requires_grad


@pytest.mark.parametrize("problem", PROBLEMS)
@given(runs=st.integers(1, 12), seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 30.0, 1e3]))
@settings(max_examples=20, deadline=None)
def test_points_of_a_batch_do_not_influence_each_other(problem, runs, seed, scale):
    x = points(runs, problem.d, seed=seed, scale=scale)
    for method in (problem.loss, problem.gradients, problem.gradient):
        together = method(x)
        for r in range(runs):
            assert torch.equal(together[r], method(x[r]))
            assert torch.equal(together[r], method(x[r : r + 1])[0])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_diverged_point_stays_alone_and_silent(problem):
    x = points(4, problem.d)
    x[1] = 1e300
    x[2] = math.inf
    x[3] = math.nan
    for method in (problem.loss, problem.gradients, problem.gradient):
        assert torch.equal(method(x)[0], method(x[0]))
        assert not method(x)[3].isfinite().all()
    problem.node_gradient(0, x[1])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_one_node_alone(problem):
    x = points(problem.d, seed=5)
    together = problem.gradients(x)
    for i in range(problem.nodes):
        torch.testing.assert_close(problem.node_gradient(i, x), together[i], rtol=1e-13, atol=1e-15)
    for i in (-1, problem.nodes):
        with pytest.raises(IndexError, match=f"node {i} does not exist"):
            problem.node_gradient(i, x)
    with pytest.raises(ValueError, match="one point of shape"):
        problem.node_gradient(0, x[None])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_points_of_other_types_and_strides(problem):
    x = points(3, problem.d)
    expected = problem.gradients(x)
    assert torch.equal(problem.gradients(x.t().contiguous().t()), expected)
    assert torch.equal(problem.gradients(x.float()), problem.gradients(x.float().double()))
    assert torch.equal(problem.gradients(x.bfloat16()), problem.gradients(x.bfloat16().double()))
    ones = torch.ones(problem.d, dtype=torch.int64)
    assert torch.equal(problem.loss(ones), problem.loss(ones.double()))
    before = x.clone()
    problem.gradient(x)
    problem.loss(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_points_that_do_not_fit(problem):
    for method in (problem.loss, problem.gradients, problem.gradient):
        for shape in ((problem.d + 1,), (problem.d, 1), ()):
            with pytest.raises(ValueError, match=rf"x must have shape \(\.\.\., {problem.d}\), got"):
                method(torch.zeros(shape))
        with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got ndarray"):
            method(np.zeros(problem.d))
        for dtype in (torch.complex128, torch.bool):
            with pytest.raises(TypeError, match="x must be real"):
                method(torch.zeros(problem.d, dtype=dtype))
        with pytest.raises(ValueError, match=r"compute on the CPU, pass x.cpu\(\)"):
            method(torch.zeros(problem.d, device="meta"))


def test_logistic_far_out():
    """Margins of +-1000: nothing overflows, and the loss is the margin itself."""
    problem = LogisticRegression.from_arrays(np.array([[1.0], [1.0]]), [0, 1], nodes=2, regularizer=0.0)
    x = torch.tensor([[1000.0], [-1000.0]], dtype=F64)
    assert problem.loss(x).tolist() == [500.0, 500.0]
    assert problem.gradients(x).squeeze(-1).tolist() == [[1.0, 0.0], [0.0, -1.0]]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_threads_change_no_bit(problem, monkeypatch):
    x = points(5, problem.d)
    x[4] = 1e300  # warnings must be off in every thread
    monkeypatch.setattr("laconic.lab._rows._WORTH_A_THREAD", 0)
    results = []
    for threads in (1, 2, 3, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(problem.gradients(x))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0, equal_nan=True)


def test_values_are_stored_once():
    X, y = random_data(47, 9, 0.5, 0)
    rows = LogisticRegression.from_arrays(X, y, nodes=5).rows
    assert all(np.shares_memory(rows.matrix.data, block.data) for block in rows.blocks)
    assert rows.matrix.indices.dtype == np.int32


def test_split_sizes():
    X, y = random_data(47, 3, 1.0, 0)
    for cls in (LogisticRegression, LeastSquares):
        assert cls.from_arrays(X, y, nodes=5).sizes == (9, 9, 9, 9, 11)
    assert repr(LogisticRegression.from_arrays(X, y, nodes=5)) == (
        "LogisticRegression(d=3, nodes=5, rows=47, regularizer=0.1)"
    )
    assert repr(LeastSquares.from_arrays(X, y, nodes=5)) == "LeastSquares(d=3, nodes=5, rows=47)"


# ---------------------------------------------------------------------------------------------- constants


@pytest.mark.parametrize("density", [1.0, 0.05])
@pytest.mark.parametrize("d", [4, 30])  # with more and with fewer rows than columns on a node
def test_smoothness_against_dense_eigenvalues(density, d):
    X, y = random_data(47, d, density, seed=2)
    blocks = [A.numpy() for A, _ in parts(X, y, 5)]
    tops = [np.linalg.eigvalsh(B.T @ B / len(B))[-1] for B in blocks]
    pooled = np.linalg.eigvalsh(X.T @ X / len(X))[-1]
    mean = np.linalg.eigvalsh(sum(B.T @ B / len(B) for B in blocks) / 5)
    squares = LeastSquares.from_arrays(X, y, nodes=5)
    logistic = LogisticRegression.from_arrays(X, y, nodes=5, regularizer=0.2)
    for problem, scale, shift in ((squares, 1.0, 0.0), (logistic, 0.25, 0.4)):
        assert pytest.approx(scale * pooled + shift, rel=1e-12) == problem.L
        assert pytest.approx(scale * mean[-1] + shift, rel=1e-12) == problem.smoothness.L
        assert problem.L_nodes == pytest.approx([scale * t + shift for t in tops], rel=1e-12)
        assert problem.L_tilde == pytest.approx(math.sqrt(np.mean(np.square(problem.L_nodes))), rel=1e-14)
    assert squares.rank == np.linalg.matrix_rank(X)
    assert squares.mu == pytest.approx(mean[d - squares.rank], rel=1e-9)
    assert logistic.mu is None


def test_means_of_smoothness():
    s = Smoothness(L=1.0, L_pooled=1.0, L_nodes=(3.0, 5.0))
    assert (s.L_mean, s.L_max) == (4.0, 5.0)
    assert s.L_tilde == math.sqrt(17)


@pytest.mark.parametrize("problem", PROBLEMS)
@given(seed=st.integers(0, 2**31), distance=st.sampled_from([1e-3, 1.0, 10.0]))
@settings(max_examples=20, deadline=None)
def test_gradients_are_lipschitz(problem, seed, distance):
    x = points(problem.d, seed=seed)
    step = distance * points(problem.d, seed=seed + 1)
    difference = problem.gradients(x + step) - problem.gradients(x)
    slack = 1 + 1e-9
    ratios = difference.norm(dim=-1) / step.norm()
    assert (ratios <= torch.tensor(problem.L_nodes, dtype=F64) * slack).all()
    assert difference.mean(0).norm() <= problem.smoothness.L * step.norm() * slack
    assert ratios.square().mean().sqrt() <= problem.L_tilde * slack


def test_logistic_smoothness_is_nearly_attained():
    """At x = 0 both parts of the Hessian are at their largest, so the bound is met there."""
    X, y = random_data(47, 6, 1.0, seed=8)
    problem = LogisticRegression.from_arrays(X, y, nodes=5)
    zero = torch.zeros(6, dtype=F64)
    H = torch.autograd.functional.hessian(
        lambda x: sum(f(x) for f in logistic_oracle(X, y, 5, 0.1)) / 5, zero
    )
    assert torch.linalg.eigvalsh(H)[-1].item() == pytest.approx(problem.smoothness.L, rel=1e-12)


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 30), d=st.integers(1, 12), nodes=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_least_squares_satisfies_polyak_lojasiewicz(seed, rows, d, nodes):
    X, _ = random_data(rows, d, 0.7, seed)
    X[0, 0] = 1.0
    X[:, -1] = X[:, 0]  # rank-deficient, so f is not strongly convex
    y = np.random.default_rng(seed).standard_normal(rows)
    problem = LeastSquares.from_arrays(X, y, nodes=min(nodes, rows))
    best = problem.minimizer()
    assert problem.gradient(best).norm() <= 1e-10 * max(1.0, problem.L)
    x = points(8, d, seed=seed, scale=3.0)
    gap = problem.loss(x) - problem.loss(best)
    squares = problem.gradient(x).square().sum(-1)
    assert (squares >= 2 * problem.mu * gap * (1 - 1e-8) - 1e-12).all()
    assert (squares <= 2 * problem.smoothness.L * gap * (1 + 1e-8) + 1e-12).all()


def test_least_squares_without_information():
    problem = LeastSquares.from_arrays(np.zeros((3, 2)), np.ones(3), nodes=1)
    assert (problem.L, problem.mu, problem.rank) == (0.0, None, 0)
    assert problem.minimizer().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("rows", "d"), [(60, 40), (40, 60)])
def test_large_matrices_go_by_lanczos(monkeypatch, rows, d):
    X, y = random_data(rows, d, 0.3, seed=4)
    problem = LeastSquares.from_arrays(X, y, nodes=3)
    matrix = problem.rows.matrix
    dense = largest_gram_eigenvalue(matrix)
    square = scipy.sparse.csr_array(matrix.T @ matrix)
    ends = extreme_eigenvalues(square - 5.0 * scipy.sparse.eye_array(d, format="csr"))
    monkeypatch.setattr("laconic.lab._smoothness.DENSE_LIMIT", 10)
    monkeypatch.setattr("laconic.lab._least_squares.DENSE_LIMIT", 10)
    assert largest_gram_eigenvalue(matrix) == pytest.approx(dense, rel=1e-12)
    assert largest_gram_eigenvalue(matrix) == largest_gram_eigenvalue(matrix)
    again = extreme_eigenvalues(square - 5.0 * scipy.sparse.eye_array(d, format="csr"))
    assert again == pytest.approx(ends, rel=1e-10)
    assert problem.mu is None
    with pytest.raises(ValueError, match="too large for a dense eigendecomposition"):
        problem.minimizer()


# ---------------------------------------------------------------------------------------------- quadratics


def top(x, k):
    """Top-k of every row, ties to the lowest position."""
    kept = torch.zeros_like(x)
    chosen = torch.sort(x.abs(), dim=-1, descending=True, stable=True).indices[..., :k]
    return kept.scatter(-1, chosen, x.gather(-1, chosen))


def test_quadratic_constants_against_dense_eigenvalues():
    A, b, c = random_blocks(4, 6, seed=3)
    problem = Quadratic(A, b, c)
    norms = [np.linalg.norm(block, 2) for block in A]
    mean, mean_square = A.mean(0), (A @ A).mean(0)
    assert pytest.approx(np.linalg.norm(mean, 2), rel=1e-12) == problem.L
    assert problem.L_nodes == pytest.approx(norms, rel=1e-12)
    assert problem.L_plus == pytest.approx(math.sqrt(np.linalg.eigvalsh(mean_square)[-1]), rel=1e-12)
    variance = np.linalg.eigvalsh(mean_square - mean @ mean)[-1]
    assert problem.L_pm == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert problem.L_plus <= problem.L_tilde * (1 + 1e-12)
    assert problem.mu is None
    with pytest.raises(ValueError, match="no unique minimiser: its smallest curvature is -"):
        problem.minimizer()


@given(seed=st.integers(0, 2**31), nodes=st.integers(1, 5), d=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_random_quadratic(seed, nodes, d):
    problem = Quadratic.random(nodes, d, mu=0.5, L=2.0, seed=seed)
    assert problem.L_nodes == pytest.approx([2.0] * nodes, rel=1e-12)
    assert 0.5 * (1 - 1e-12) <= problem.mu <= problem.L <= 2.0 * (1 + 1e-12)
    best = problem.minimizer()
    assert problem.gradient(best).norm() <= 1e-12
    x = points(6, d, seed=seed)
    gap = problem.loss(x) - problem.loss(best)
    squares = problem.gradient(x).square().sum(-1)
    assert (squares >= 2 * problem.mu * gap * (1 - 1e-10)).all()
    assert (gap >= problem.mu / 2 * (x - best).square().sum(-1) * (1 - 1e-10)).all()


def test_random_quadratic_is_a_function_of_its_seed():
    x = points(5)
    first, again, other = (Quadratic.random(3, 5, seed=s).gradients(x) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for bad in ({"mu": 0.0}, {"mu": 2.0, "L": 1.0}, {"d": 1}):
        with pytest.raises(ValueError, match="0 < mu <= L is needed"):
            Quadratic.random(**({"nodes": 3, "d": 5} | bad))


def test_sparse_and_dense_matrices_are_the_same_problem():
    A, b, c = random_blocks(3, 12, seed=9)
    A[np.abs(A) < 1.0] = 0.0
    sparse = Quadratic([scipy.sparse.csr_array(block) for block in A], b, c)
    dense = Quadratic(torch.tensor(A), b, c)
    x = points(4, 12)
    assert torch.equal(sparse.gradients(x), dense.gradients(x))
    assert sparse.L == dense.L


def test_matrices_that_cannot_be():
    eye, b = np.stack([np.eye(2)] * 3), np.zeros((3, 2))
    skew = eye.copy()
    skew[1, 0, 1] = 1.0
    infinite = eye.copy()
    infinite[2, 0, 0] = np.inf
    for A, vectors, c, words in (
        (eye, np.zeros(2), None, r"b must have shape \(nodes, d\)"),
        (eye[:2], b, None, r"A must be 3 matrices of shape \(2, 2\) to go with b, got 2 of"),
        (np.ones((3, 2, 4)), b, None, "A must be 3 matrices"),
        (eye, b, np.zeros(2), r"c must have shape \(3,\)"),
        (skew, b, None, r"A\[1\] is not symmetric; pass \(A \+ A.mT\) / 2"),
        (infinite, b, None, r"A\[2\] has a value that is not finite"),
        (eye, b * np.nan, None, "b has a value that is not finite"),
        (eye, b, np.full(3, np.nan), "c has a value that is not finite"),
    ):
        with pytest.raises(DataError, match=words):
            Quadratic(A, vectors, c)


def test_example1_constants_and_divergence():
    problem = Quadratic.example1()
    assert problem.L_nodes == pytest.approx([34.5] * 3, rel=1e-12)
    assert pytest.approx(103 / 6, rel=1e-12) == problem.L
    assert problem.mu == pytest.approx(7 / 6, rel=1e-12)
    a = torch.tensor([-3.0, 2.0, 2.0], dtype=F64)
    x = points(3)
    own = (2 * (a @ x)) * a + x / 2
    torch.testing.assert_close(problem.node_gradient(0, x), own)
    assert problem.loss(x) > problem.loss(torch.zeros(3)) == 0.0
    for stepsize in (1e-3, 0.1, 1.0):
        x = torch.full((3,), 0.7, dtype=F64)
        for k in range(1, 6):
            x = x - stepsize * top(problem.gradients(x), 1).mean(0)
            torch.testing.assert_close(x, torch.full((3,), 0.7 * (1 + 11 * stepsize / 6) ** k, dtype=F64))


@pytest.mark.parametrize(("d", "d1"), [(3, 1), (5, 2), (6, 1), (7, 3)])
def test_example2_divergence(d, d1):
    problem = Quadratic.example2(d, d1)
    assert problem.nodes == math.comb(d, d1)
    assert problem.mu >= 1.0
    d2 = d - d1
    b = d2 + d2 / d1
    x = torch.full((d,), -1.3, dtype=F64)
    moved = x - 0.01 * top(problem.gradients(x), d1).mean(0)
    torch.testing.assert_close(moved, x * (1 + 0.01 * (2 * b - 1) * d1 / d), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("d", "d1"), [(2, 1), (4, 2), (5, 0)])
def test_example2_that_cannot_be(d, d1):
    with pytest.raises(ValueError, match="d >= 3 and 1 <= d1 < d / 2 are needed"):
        Quadratic.example2(d, d1)


def test_example3_stands_still():
    problem = Quadratic.example3()
    x = torch.zeros(2, dtype=F64)
    assert top(problem.gradients(x), 1).sum(0).tolist() == [0.0, 0.0]
    assert problem.gradients(x).sum(0).tolist() == [1.0, 0.0]
    assert (problem.L, problem.mu, problem.L_pm) == (1.0, 1.0, 0.0)
    assert Quadratic.example3([(1.0, 2.0, 3.0)]).d == 3


def test_two_centres():
    """The worked example of EF21's Top-1 on |x - a_i|^2 / 2 with a = (4, 0), (0, 3), stepsize 0.1."""
    problem = Quadratic(torch.stack([torch.eye(2)] * 2), torch.tensor([[4.0, 0.0], [0.0, 3.0]]), [8.0, 4.5])
    assert problem.loss(torch.tensor([4.0, 0.0])).item() == 12.5 / 2
    x = torch.zeros(2, dtype=F64)
    g = top(problem.gradients(x), 1)
    path = [x]
    for _ in range(3):
        x = x - 0.1 * g.mean(0)
        g = g + top(problem.gradients(x) - g, 1)
        path.append(x)
    expected = torch.tensor([[0, 0], [0.2, 0.15], [0.38, 0.30], [0.56, 0.42]], dtype=F64)
    torch.testing.assert_close(torch.stack(path), expected)


@pytest.mark.parametrize(
    ("nodes", "heterogeneity", "L", "L_pm"),
    [(100, 6.4, 0.7700, 6.5814), (100, 0.8, 0.9713, 0.8227), (10, 0.8, 1.3525, 0.8961)],
)
def test_three_pc_constants(nodes, heterogeneity, L, L_pm):
    problem = Quadratic.three_pc(nodes, heterogeneity=heterogeneity)
    assert round(problem.L, 4) == L
    assert round(problem.L_pm, 4) == L_pm
    assert problem.mu == pytest.approx(1e-6, rel=1e-8)
    assert problem.L_pm < problem.L_plus <= problem.L_tilde * (1 + 1e-12)


def test_three_pc_against_the_formulas():
    problem = Quadratic.three_pc(nodes=4, d=30, heterogeneity=2.0, mu=0.01)
    state = np.random.RandomState(12345)
    stencil = 2 * np.eye(30) - np.eye(30, k=1) - np.eye(30, k=-1)
    A, b = [], []
    for _ in range(4):
        nu = 1 + 2.0 * state.randn()
        A.append(nu / 4 * stencil)
        b.append(nu / 4 * (-1 + 2.0 * state.randn()) * np.eye(30)[0])
    shift = 0.01 - np.linalg.eigvalsh(np.mean(A, axis=0))[0]
    plain = Quadratic([block + shift * np.eye(30) for block in A], np.array(b))
    x = points(30)
    torch.testing.assert_close(problem.gradients(x), plain.gradients(x), rtol=1e-12, atol=1e-13)
    assert problem.mu == pytest.approx(0.01, rel=1e-10)


# ------------------------------------------------------------------------------------- the papers' data

ROOT = os.environ.get("LACONIC_DATA")
needs_data = pytest.mark.skipif(
    ROOT is None, reason="set LACONIC_DATA to the folder that contains libsvm/ with the LibSVM files"
)

# name: rows, d, rows of the last node, L, L tilde, L of the mean over nodes relative to L,
# theoretical stepsizes of EF21 with Top-1, 2 and 4
LOGISTIC = {
    "phishing": (11055, 68, 567, 0.3625510764, 0.3660851028, -2.24e-6, (0.0201612, 0.0404763, 0.0815824)),
    "mushrooms": (8124, 112, 410, 2.7862142339, 3.4932259751, 7.12e-5, (0.00128201, 0.00257215, 0.00517729)),
    "a9a": (32561, 123, 1629, 1.7719196992, 1.7730670813, 5.61e-8, (0.00229735, 0.00460414, 0.00924654)),
    "w8a": (49749, 300, 2496, 0.8611993845, 1.0161180584, -2.90e-5, (0.00164202, 0.00328762, 0.00658965)),
}
# name: lambda_max, L tilde, rank, smallest nonzero eigenvalue of X^T X / N
SQUARES = {
    "phishing": (0.650204, 0.664386, 39, 4.988e-4),
    "mushrooms": (10.344857, 13.178273, 84, 2.03e-4),
    "a9a": (6.287679, 6.292281, 108, 3.056e-5),
    "w8a": (2.644798, 3.291719, 266, 1.781e-5),
}


def libsvm(name):
    return Path(ROOT, "libsvm", f"{name}.txt")


@needs_data
@pytest.mark.parametrize("name", LOGISTIC)
def test_logistic_constants_of_the_papers_data(name):
    rows, d, last, L, L_tilde, excess, stepsizes = LOGISTIC[name]
    problem = LogisticRegression.from_libsvm(libsvm(name))
    assert (problem.nodes, problem.d) == (20, d)
    assert problem.sizes == (*[rows // 20] * 19, last)
    assert pytest.approx(L, abs=6e-11) == problem.L  # the last printed digit
    assert problem.L_tilde == pytest.approx(L_tilde, abs=6e-11)
    assert pytest.approx(excess, rel=5e-3) == problem.smoothness.L / problem.L - 1
    for k, stepsize in zip((1, 2, 4), stepsizes, strict=True):
        alpha = k / d
        root = (1 + math.sqrt(1 - alpha)) / alpha - 1  # sqrt(beta / theta) of EF21
        assert 1 / (problem.L + problem.L_tilde * root) == pytest.approx(stepsize, rel=5e-6)


@needs_data
@pytest.mark.parametrize("name", SQUARES)
def test_least_squares_constants_of_the_papers_data(name):
    L, L_tilde, rank, smallest = SQUARES[name]
    problem = LeastSquares.from_libsvm(libsvm(name))
    assert pytest.approx(L, abs=6e-7) == problem.L
    assert problem.L_tilde == pytest.approx(L_tilde, abs=6e-7)
    assert problem.rank == rank
    pooled = LeastSquares.from_libsvm(libsvm(name), nodes=1)
    assert pooled.mu == pytest.approx(smallest, rel=2e-4)
    assert problem.mu == pytest.approx(smallest, rel=2e-3)  # over the mean of nodes, the last one longer


@needs_data
def test_gradients_on_the_papers_data():
    problem = LogisticRegression.from_libsvm(libsvm("a9a"))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, problem.d)))
    together = problem.gradients(x)
    for r in range(3):
        assert torch.equal(together[r], problem.gradients(x[r]))
        for i in range(problem.nodes):
            torch.testing.assert_close(problem.node_gradient(i, x[r]), together[r, i], rtol=1e-13, atol=1e-15)
    leaf = x[0].clone().requires_grad_()
    file_rows = scipy.sparse.csr_array(problem.rows.matrix).toarray()
    start = problem.rows.bounds[-2]
    signed = torch.tensor(file_rows[start:])
    value = -torch.nn.functional.logsigmoid(signed @ leaf).mean() + 0.1 * (leaf**2 / (1 + leaf**2)).sum()
    torch.testing.assert_close(together[0, -1], torch.autograd.grad(value, leaf)[0], rtol=1e-12, atol=1e-14)


def test_without_compiled_loops_gradients_have_the_same_bits():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((57, 9)) * (rng.random((57, 9)) < 0.4)
    problem = LogisticRegression.from_arrays(features, rng.integers(0, 2, 57).astype(float), nodes=5)
    points = torch.from_numpy(rng.standard_normal((3, 9)))
    expected = problem.gradients(points)
    with _dispatch.force_reference():
        assert torch.equal(problem.gradients(points), expected)
