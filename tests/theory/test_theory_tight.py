"""The tight rate of EF14 and EF21 on one node: never exceeded, and attained."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import theory

fixed = settings(derandomize=True, deadline=None)


def top(x, k):
    out = np.zeros_like(x)
    kept = np.argsort(-np.abs(x), kind="stable")[:k]
    out[kept] = x[kept]
    return out


def worst(a, eta, eps):
    """The largest one-step ratios of the two Lyapunov functions on f(x) = a x^2 / 2.

    The compressor's error is as large as it may be, in the direction that hurts; one step of either method
    from a state (two numbers) is linear but for that, so that the ratio is one of two quadratic forms.
    """
    root = math.sqrt(eps)

    def ratio(after, before):
        return np.linalg.eigvals(np.linalg.solve(before, after)).real.max()

    def square(*row):
        return np.outer(row, row)

    # EF14, state (z, e) with z = x - x* - e: z <- z - eta a (z + e), |e| <- root |e + eta a (z + e)|
    ef = ratio(
        square(1 - eta * a, -eta * a) + eps / root * square(eta * a, 1 + eta * a),
        square(1, 0) + square(0, 1) / root,
    )
    # EF21, state (g, h): g <- g - eta a h, |g - h| <- root |g - eta a h - h|
    ef21 = ratio(
        eps * square(1, -eta * a - 1) + root * square(1, -eta * a),
        square(1, -1) + root * square(1, 0),
    )
    return ef, ef21


constants = (st.floats(0.1, 10), st.floats(0.001, 0.999), st.floats(0.01, 0.99))


@fixed
@given(*constants)
def test_the_factor_is_attained_by_both_methods_at_both_ends(L, condition, alpha):
    mu = L * condition
    eta, factor = theory.tight_rate(L, mu, alpha)
    assert 0 < factor < 1
    for a in (mu, L):
        assert worst(a, eta, 1 - alpha) == pytest.approx((factor, factor), rel=1e-7)
    for between in (0.2, 0.5, 0.8):
        assert max(worst(mu + between * (L - mu), eta, 1 - alpha)) <= factor * (1 + 1e-7)


@fixed
@given(*constants, st.sampled_from([0.8, 0.95, 1.05, 1.2]))
def test_no_other_stepsize_is_better(L, condition, alpha, multiple):
    mu = L * condition
    eta, factor = theory.tight_rate(L, mu, alpha)
    assert max(max(worst(a, eta * multiple, 1 - alpha)) for a in (mu, L)) >= factor * (1 - 1e-9)


@fixed
@given(*constants[:2])
def test_without_compression_it_is_gradient_descent(L, condition):
    mu = L * condition
    eta, factor = theory.tight_rate(L, mu, 1.0)
    assert eta == pytest.approx(2 / (L + mu))
    assert factor == pytest.approx(((L - mu) / (L + mu)) ** 2)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_top_k_stays_under_the_factor_for_many_rounds(k, seed):
    rng = np.random.default_rng(seed)
    d = 10
    Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    A = (Q * np.concatenate([[1.0, 4.0], rng.uniform(1, 4, d - 2)])) @ Q.T
    alpha = k / d
    root = math.sqrt(1 - alpha)
    eta, factor = theory.tight_rate(4.0, 1.0, alpha)

    x, e = rng.standard_normal(d), np.zeros(d)
    y = x.copy()
    h = top(A @ y, k)
    largest = 0.0
    before = None
    for _ in range(300):
        g = A @ y
        now = ((x - e) ** 2).sum() + (e**2).sum() / root, ((g - h) ** 2).sum() + root * (g**2).sum()
        if before is not None:
            assert now[0] <= factor * before[0] * (1 + 1e-9)
            assert now[1] <= factor * before[1] * (1 + 1e-9)
            largest = max(largest, now[0] / before[0], now[1] / before[1])
        before = now
        target = e + eta * (A @ x)
        message = top(target, k)
        x, e = x - message, target - message
        y = y - eta * h
        h = h + top(A @ y - h, k)
    assert largest > 0.8 * factor


def test_a_small_search_comes_near_the_factor_with_top_1():
    """States in the plane, Top-1, curvatures 1 and 10: the worst ratio found is nearly the factor."""
    alpha, L, mu = 0.5, 10.0, 1.0
    root = math.sqrt(1 - alpha)
    eta, factor = theory.tight_rate(L, mu, alpha)
    rng = np.random.default_rng(0)
    closest = 0.0
    for _ in range(4000):
        angle = rng.uniform(0, np.pi)
        v = np.array([np.cos(angle), np.sin(angle)])
        A = mu * np.eye(2) + (L - mu) * np.outer(v, v)
        z, e = rng.standard_normal((2, 2))
        if rng.uniform() < 0.5:
            e = z * rng.uniform(-2, 2)
        g = A @ (z + e)
        target = e + eta * g
        e_next = target - top(target, 1)
        after = ((z - eta * g) ** 2).sum() + (e_next**2).sum() / root
        ratio = after / ((z**2).sum() + (e**2).sum() / root)
        assert ratio <= factor * (1 + 1e-12)
        closest = max(closest, ratio)
    assert closest > 0.95 * factor


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="mu must not exceed L"):
        theory.tight_rate(1.0, 2.0, 0.5)
    with pytest.raises(ValueError, match="alpha must lie"):
        theory.tight_rate(1.0, 0.5, 0.0)
    with pytest.raises(ValueError, match="mu must be positive"):
        theory.tight_rate(1.0, 0.0, 0.5)
