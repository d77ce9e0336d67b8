"""Compressed gradient descent: Theorems 17 to 19 restated, then run."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import theory

fixed = settings(derandomize=True, deadline=None)

positives = st.floats(1e-2, 1e2)


def top(x, k):
    out = np.zeros_like(x)
    kept = np.argsort(-np.abs(x), kind="stable")[:k]
    out[kept] = x[kept]
    return out


@fixed
@given(positives, positives, st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_the_three_theorems_restated(L, beta, part, condition, fraction):
    mu, gamma = L * condition, beta * part
    alpha = beta**2 * part
    for rate, strength in (
        (theory.cgd_b1(alpha, beta, L, mu), alpha / beta),
        (theory.cgd_b2(gamma, beta, L, mu), gamma),
    ):
        eta = fraction * rate.max_stepsize
        assert rate.max_stepsize == pytest.approx(2 / (beta * L))
        assert rate.best_stepsize == pytest.approx(1 / (beta * L))
        assert rate.factor(eta) == pytest.approx(1 - strength * eta * mu * (2 - eta * beta * L), abs=1e-12)
        assert rate.factor() == pytest.approx(rate.factor(rate.best_stepsize), abs=1e-12)
        assert rate.factor() <= rate.factor(eta) + 1e-12
        assert 0 <= rate.factor() < 1
    assert theory.cgd_b1(alpha, beta, L, mu).complexity == pytest.approx(beta**2 / alpha * L / mu)
    assert theory.cgd_b2(gamma, beta, L, mu).complexity == pytest.approx(beta / gamma * L / mu)
    delta = 1 / part
    rate = theory.cgd_b3(delta, L, mu)
    eta = fraction * rate.max_stepsize
    assert rate.max_stepsize == rate.best_stepsize == 1 / L
    assert rate.factor(eta) == pytest.approx(1 - eta * mu / delta, abs=1e-12)
    assert rate.complexity == pytest.approx(delta * L / mu)
    assert rate.compressor_class == "B3"


@fixed
@given(positives, positives, positives)
def test_scaling_the_compressor_changes_no_rate_of_b1_and_b2(scale, beta, L):
    one, two = (
        theory.cgd_b2(0.5 * beta, beta, L, L / 2),
        theory.cgd_b2(0.5 * beta * scale, beta * scale, L, L / 2),
    )
    assert one.complexity == pytest.approx(two.complexity)
    assert one.best_stepsize == pytest.approx(two.best_stepsize * scale)


def test_the_pathwise_bound_restated():
    deltas, L, mu = [1.0, 3.0, math.inf, 20.0], 4.0, 0.5
    expected = np.cumprod([1.0, *[1 - mu / (delta * L) for delta in deltas]])
    assert theory.cgd_pathwise(deltas, L, mu) == pytest.approx(list(expected))
    assert theory.cgd_pathwise([3.0] * 7, L, mu)[-1] == pytest.approx(theory.cgd_b3(3.0, L, mu).factor() ** 7)


def test_the_rounds_suffice():
    rate = theory.cgd_b3(5.0, 3.0, 0.5)
    k = rate.rounds(1e-6)
    assert rate.factor() ** k <= 1e-6
    assert rate.factor() ** (0.9 * k) > 1e-6


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="B1 needs alpha <= beta"):
        theory.cgd_b1(1.1, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="B2 needs gamma <= beta"):
        theory.cgd_b2(1.1, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="delta must be finite and at least 1"):
        theory.cgd_b3(0.9, 1.0, 1.0)
    with pytest.raises(ValueError, match="mu must not exceed L"):
        theory.cgd_b3(1.0, 1.0, 1.1)
    with pytest.raises(ValueError, match="use best_stepsize"):
        theory.cgd_b3(1.0, 1.0, 1.0).factor(1.1)
    with pytest.raises(ValueError, match="relative to the first gap"):
        theory.cgd_b3(1.0, 1.0, 1.0).rounds(0.0)
    with pytest.raises(ValueError, match="not contractive here"):
        theory.measured_delta(2.0, 1.0)
    with pytest.raises(ValueError, match="every delta must be at least 1"):
        theory.cgd_pathwise([2.0, 0.5], 1.0, 0.5)


def test_measured_delta_at_its_ends():
    assert theory.measured_delta(0.0, 0.0) == 1.0
    assert theory.measured_delta(0.0, 3.0) == 1.0
    assert theory.measured_delta(3.0, 3.0) == math.inf


# Expectations are exact below: every outcome of Rand-k is enumerated, and for coordinatewise rounding the
# expectation of a quadratic needs only the means and variances of the coordinates.


def quadratic(seed, d=6):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    spectrum = np.sort(rng.uniform(0.5, 5.0, d))
    return (Q * spectrum) @ Q.T, spectrum[-1], spectrum[0], rng


def subsets(g, k, scale):
    for kept in itertools.combinations(range(g.size), k):
        out = np.zeros_like(g)
        out[list(kept)] = g[list(kept)] * scale
        yield out


def nearest_power(x):
    low = 2.0 ** np.floor(np.log2(np.abs(x)))
    return np.sign(x) * np.where(np.abs(x) - low <= 2 * low - np.abs(x), low, 2 * low)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["rand-k", "unscaled rand-k", "top-k", "natural", "nearest power"])
def test_one_step_factors_hold_in_expectation(name, fraction):
    tightest = {"B1": 0.0, "B2": 0.0, "B3": 0.0}
    for seed in range(40):
        A, L, mu, rng = quadratic(seed)
        d, k = 6, 2
        x = rng.standard_normal(d)
        if seed % 2:
            x = np.linalg.solve(A, np.ones(d) + 0.01 * rng.standard_normal(d))
        g = A @ x
        variance = np.zeros(d)
        if name == "rand-k":
            outcomes, classes = list(subsets(g, k, d / k)), {"B1": (1.0, d / k), "B2": (1.0, d / k)}
        elif name == "unscaled rand-k":
            outcomes = list(subsets(g, k, 1.0))
            classes = {"B1": (k / d, 1.0), "B2": (k / d, 1.0), "B3": (d / k,)}
        elif name == "top-k":
            outcomes, classes = [top(g, k)], {"B1": (k / d, 1.0), "B2": (k / d, 1.0), "B3": (d / k,)}
        elif name == "natural":
            low = 2.0 ** np.floor(np.log2(np.abs(g)))
            outcomes, variance = [g], (np.abs(g) - low) * (2 * low - np.abs(g))
            classes = {"B1": (1.0, 9 / 8), "B2": (1.0, 9 / 8), "B3": (1 / (2 - 9 / 8),)}
        else:
            outcomes = [nearest_power(g)]
            classes = {"B1": (4 / 9, 4 / 3), "B2": (2 / 3, 4 / 3), "B3": (9 / 8,)}
        maker = {"B1": theory.cgd_b1, "B2": theory.cgd_b2, "B3": theory.cgd_b3}
        for cls, constants in classes.items():
            rate = maker[cls](*constants, L, mu)
            eta = fraction * rate.max_stepsize
            points = [x - eta * c for c in outcomes]
            after = np.mean([0.5 * p @ A @ p for p in points]) + 0.5 * eta**2 * (np.diag(A) * variance).sum()
            ratio = after / (0.5 * x @ A @ x)
            assert ratio <= rate.factor(eta) * (1 + 1e-12)
            tightest[cls] = max(tightest[cls], ratio / rate.factor(eta))
    assert max(tightest.values()) > 0.5


def descend(A, y, k, rounds):
    """Top-k CGD with stepsize 1/L on x'Ax - y'x; the gaps and the measured deltas."""
    spectrum = np.linalg.eigvalsh(A)
    L, mu = 2 * spectrum[-1], 2 * spectrum[0]
    solution = np.linalg.solve(2 * A, y)
    x, gaps, deltas = np.zeros_like(y), [], []
    for _ in range(rounds):
        off = x - solution
        gaps.append(off @ A @ off)
        g = 2 * A @ off
        c = top(g, k)
        deltas.append(theory.measured_delta(((c - g) ** 2).sum(), (g**2).sum()))
        x = x - c / L
    return np.array(gaps), deltas, L, mu


@pytest.mark.parametrize("largest", [10, 100, 1000])
def test_the_pathwise_bound_holds_on_the_papers_quadratics(largest):
    rng = np.random.default_rng(largest)
    Q, _ = np.linalg.qr(rng.standard_normal((100, 100)))
    A = (Q.T * rng.uniform(1, largest, 100)) @ Q
    gaps, deltas, L, mu = descend((A + A.T) / 2, rng.uniform(0, 1, 100), 5, 400)
    bounds = np.array(theory.cgd_pathwise(deltas, L, mu)[:-1])
    assert np.all(gaps <= gaps[0] * bounds * (1 + 1e-9))
    # Measured deltas are below d/k = 20, so that this bound is sharper than Theorem 19's.
    assert max(deltas) <= 20
    assert bounds[-1] < theory.cgd_b3(20.0, L, mu).factor() ** 399


def test_the_pathwise_bound_holds_on_diabetes():
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_diabetes(return_X_y=True)
    N = len(y)
    gaps, deltas, L, mu = descend(X.T @ X / N, 2 * X.T @ y / N, 5, 2000)
    bounds = np.array(theory.cgd_pathwise(deltas, L, mu)[:-1])
    assert np.all(gaps <= gaps[0] * bounds * (1 + 1e-9))
    assert gaps[-1] < 0.2 * gaps[0]
