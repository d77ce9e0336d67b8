"""EF14: Theorem 21's schedules, its bounds on problems that are run here, and the ergodic average."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import theory

fixed = settings(derandomize=True, deadline=None)


def top(x, k):
    kept = np.argsort(-np.abs(x), axis=-1, kind="stable")[:, :k]
    out = np.zeros_like(x)
    np.put_along_axis(out, kept, np.take_along_axis(x, kept, -1), -1)
    return out


@fixed
@given(st.floats(1, 1e3), st.floats(1e-3, 1e3), st.floats(1e-3, 1.0), st.floats(0, 10))
def test_the_constants_restated(delta, L, condition, B):
    mu = L * condition
    assert theory.algorithm1_stepsize(delta, L, B) == pytest.approx(1 / (14 * (2 * delta + B) * L))
    kappa = theory.algorithm1_kappa(delta, L, mu, B)
    assert kappa == pytest.approx(56 * (2 * delta + B) * L / mu)
    # The decreasing schedule starts at the constant one's stepsize: 4 / (mu kappa).
    assert 4 / (mu * kappa) == pytest.approx(theory.algorithm1_stepsize(delta, L, B))
    noise = theory.algorithm1_noise(delta, 4, 2.0, B, 3.0)
    assert noise == pytest.approx(3 * (1 + 1 / 4) + 2 * (2 * B / 4 + 3 * delta))


def test_the_schedules_restated():
    decreasing = theory.DecreasingSchedule(kappa=100.0, mu=0.5)
    geometric = theory.GeometricSchedule(eta=0.1, mu=0.5)
    uniform = theory.UniformSchedule(eta=0.1)
    for k in (1, 2, 50):
        assert decreasing.stepsize(k) == pytest.approx(4 / (0.5 * (100 + k)))
        assert decreasing.growth(k) == pytest.approx((100 + k) / (100 + k - 1))
        assert geometric.growth(k) == pytest.approx((1 - 0.025) ** -(k + 1) / (1 - 0.025) ** -k)
        assert (geometric.stepsize(k), uniform.stepsize(k), uniform.growth(k)) == (0.1, 0.1, 1.0)
    assert decreasing.bound(10, 3.0, 2.0) == pytest.approx(2 * 0.5 * 100**2 * 3 / 100 + 32 * 2 / 5)
    assert geometric.bound(10, 3.0, 2.0) == pytest.approx(120 * math.exp(-0.25) + 0.8)
    assert uniform.bound(9, 3.0, 2.0) == pytest.approx(12 + 0.8)


def problem(seed, alike, n=5, d=8):
    """Quadratics with curvature in [1, 3] on every node; alike: one minimiser for all, so that D = 0."""
    rng = np.random.default_rng(seed)
    A = np.empty((n, d, d))
    for i in range(n):
        Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
        A[i] = (Q * rng.uniform(1.0, 3.0, d)) @ Q.T
    centre = rng.standard_normal(d)
    b = A @ centre if alike else rng.standard_normal((n, d)) * 3
    return A, b


@pytest.mark.parametrize("alike", [True, False], ids=["D = 0", "D > 0"])
@pytest.mark.parametrize("schedule_name", ["decreasing", "geometric", "uniform"])
@pytest.mark.parametrize("k", [2, 8])
def test_theorem_21_holds_at_every_round(schedule_name, alike, k):
    A, b = problem(7, alike)
    n, d = b.shape
    spectra = np.linalg.eigvalsh(A)
    L, mu, delta = spectra.max(), spectra.min(), d / k
    mean_A = A.mean(0)
    solution = np.linalg.solve(mean_A, b.mean(0))
    D = ((A @ solution - b) ** 2).sum(-1).mean()
    assert (D < 1e-20) == alike
    noise = theory.algorithm1_noise(delta, n, D)
    eta = theory.algorithm1_stepsize(delta, L)
    schedule = {
        "decreasing": theory.DecreasingSchedule(theory.algorithm1_kappa(delta, L, mu), mu),
        "geometric": theory.GeometricSchedule(eta, mu),
        "uniform": theory.UniformSchedule(eta),
    }[schedule_name]
    x, e = np.zeros(d), np.zeros((n, d))
    r0 = ((x - solution) ** 2).sum()
    average = theory.ErgodicAverage(schedule.growth)
    for K in range(3000):
        average.update(x)
        if K >= 1:
            off = average.value - solution
            assert 0.5 * off @ mean_A @ off <= schedule.bound(K, r0, noise)
        gradients = A @ x - b
        virtual = x - e.mean(0)
        target = e + schedule.stepsize(K) * gradients
        message = top(target, k)
        e = target - message
        x = x - message.mean(0)
        step = schedule.stepsize(K) * gradients.mean(0)
        assert x - e.mean(0) == pytest.approx(virtual - step, rel=1e-9, abs=1e-12)
    # The bound is no empty one: the average has come closer than the start was.
    off = average.value - solution
    assert off @ mean_A @ off < 0.5 * (solution @ mean_A @ solution)


def test_theorem_21_holds_with_noise_in_the_mean():
    """Bounded noise (C > 0), the mean over 20 runs, all three schedules; batched over the runs."""
    A, b = problem(3, alike=False)
    n, d = b.shape
    k, C, rounds, runs = 4, 4.0, 400, 20
    spectra = np.linalg.eigvalsh(A)
    L, mu, delta = spectra.max(), spectra.min(), d / k
    mean_A = A.mean(0)
    solution = np.linalg.solve(mean_A, b.mean(0))
    noise = theory.algorithm1_noise(delta, n, ((A @ solution - b) ** 2).sum(-1).mean(), C=C)
    eta = theory.algorithm1_stepsize(delta, L)
    for schedule in (
        theory.DecreasingSchedule(theory.algorithm1_kappa(delta, L, mu), mu),
        theory.GeometricSchedule(eta, mu),
        theory.UniformSchedule(eta),
    ):
        rng = np.random.default_rng(0)
        x, e = np.zeros((runs, d)), np.zeros((runs, n, d))
        average = theory.ErgodicAverage(schedule.growth)
        for K in range(rounds):
            average.update(x)
            xi = rng.standard_normal((runs, n, d)) * math.sqrt(C / d)
            target = e + schedule.stepsize(K) * (np.einsum("nij,rj->rni", A, x) - b + xi)
            message = top(target.reshape(-1, d), k).reshape(target.shape)
            e, x = target - message, x - message.mean(1)
        off = average.value - solution
        gap = 0.5 * np.einsum("ri,ij,rj->r", off, mean_A, off).mean()
        assert gap <= schedule.bound(rounds - 1, (solution**2).sum(), noise)


@fixed
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.001, 0.9))
def test_the_average_is_the_weighted_mean(points, shrink):
    schedule = theory.GeometricSchedule(eta=2 * shrink, mu=1.0)
    average = theory.ErgodicAverage(schedule.growth)
    for x in points:
        average.update(x)
    weights = [(1 - shrink) ** -(k + 1) for k in range(len(points))]
    expected = sum(w * x for w, x in zip(weights, points, strict=True)) / sum(weights)
    assert average.value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert average.count == len(points)


def test_the_average_takes_weights_whose_growth_changes():
    schedule = theory.DecreasingSchedule(kappa=2.0, mu=1.0)
    average = theory.ErgodicAverage(schedule.growth)
    points = [3.0, -1.0, 4.0, 10.0]
    for x in points:
        average.update(x)
    assert average.value == pytest.approx(sum((2 + k) * x for k, x in enumerate(points)) / (2 + 3 + 4 + 5))


def test_the_average_survives_a_million_growing_weights():
    # (1 - 0.05) ** -1e6 is about 1e22276, far beyond a float. The average of x^k = k is then known in closed
    # form: K - (1 - q) / q up to terms of the order (1 - q)^K, with q = 0.05.
    average = theory.ErgodicAverage(lambda k: 1 / 0.95)
    for k in range(1_000_000):
        average.update(float(k))
    assert average.value == pytest.approx(999_999 - 0.95 / 0.05, abs=1e-6)


def test_the_average_takes_tensors_and_keeps_no_alias():
    average = theory.ErgodicAverage(theory.UniformSchedule(0.1).growth)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    average.update(x)
    x += 2.0
    average.update(x)
    x += 100.0
    assert average.value.tolist() == [2.0, 3.0]


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="nothing has been averaged yet"):
        _ = theory.ErgodicAverage(lambda k: 1.0).value
    bad = theory.ErgodicAverage(lambda k: 0.0)
    bad.update(1.0)
    with pytest.raises(ValueError, match="growth must be positive"):
        bad.update(1.0)
    with pytest.raises(ValueError, match="use algorithm1_stepsize or less"):
        theory.GeometricSchedule(eta=2.0, mu=1.0)
    with pytest.raises(ValueError, match="kappa must be positive"):
        theory.DecreasingSchedule(kappa=0.0, mu=1.0)
    with pytest.raises(ValueError, match="K must be a whole number of at least 1"):
        theory.DecreasingSchedule(kappa=1.0, mu=1.0).bound(0, 1.0)
    with pytest.raises(ValueError, match="delta must be finite"):
        theory.algorithm1_stepsize(0.5, 1.0)
    with pytest.raises(ValueError, match="nodes must be a whole number"):
        theory.algorithm1_noise(1.0, 0, 1.0)
    with pytest.raises(ValueError, match="k must be a whole number"):
        theory.UniformSchedule(1.0).growth(0)
