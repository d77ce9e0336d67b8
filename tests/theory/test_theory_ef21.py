"""EF21's constants and stepsizes, and its two theorems on problems that are run here in plain NumPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import theory

fixed = settings(derandomize=True, deadline=None)

alphas = st.floats(1e-6, 1.0)
open_alphas = st.floats(1e-4, 0.999)
positives = st.floats(1e-3, 1e3)

ROUNDING = 1e-20  # relative to the start: below it squares of differences are rounding


@fixed
@given(alphas)
def test_the_constants_satisfy_their_identities(alpha):
    root = math.sqrt(1 - alpha)
    assert theory.theta(alpha) == pytest.approx(1 - root, rel=1e-9, abs=1e-15)
    assert theory.theta(alpha) * theory.beta(alpha) == pytest.approx(1 - alpha, rel=1e-12)
    ratio = math.sqrt(theory.beta(alpha) / theory.theta(alpha))
    assert ratio == pytest.approx((1 + root) / alpha - 1, rel=1e-9, abs=1e-9)
    assert ratio <= (2 / alpha - 1) * (1 + 1e-12)


@fixed
@given(open_alphas, st.floats(0.001, 0.999))
def test_the_optimal_s_minimises_beta_over_theta(alpha, fraction):
    s = fraction * alpha / (1 - alpha)
    best = theory.beta(alpha) / theory.theta(alpha)
    assert theory.beta(alpha, s) / theory.theta(alpha, s) >= best * (1 - 1e-9)
    star = theory.optimal_s(alpha)
    assert theory.theta(alpha, star) == pytest.approx(theory.theta(alpha), rel=1e-9)
    assert theory.beta(alpha, star) == pytest.approx(theory.beta(alpha), rel=1e-9)


def test_without_compression_nothing_is_lost():
    assert (theory.theta(1.0), theory.beta(1.0), theory.optimal_s(1.0)) == (1.0, 0.0, math.inf)
    assert theory.theta(1.0, s=3.0) == 1.0
    assert theory.beta(1.0, s=3.0) == 0.0
    assert theory.ef21_stepsize(1.0, 4.0, 9.0) == 0.25
    assert theory.ef21_pl_stepsize(1.0, 4.0, 9.0, 1.0) == 0.25


@fixed
@given(positives, positives, open_alphas, open_alphas)
def test_the_stepsize_grows_with_alpha(L, L_tilde, a, b):
    a, b = sorted((a, b))
    assert theory.ef21_stepsize(a, L, L_tilde) <= theory.ef21_stepsize(b, L, L_tilde) * (1 + 1e-12)
    assert theory.ef21_pl_stepsize(a, L, L_tilde, L) <= theory.ef21_pl_stepsize(b, L, L_tilde, L) * (
        1 + 1e-12
    )
    assert theory.ef21_stepsize(b, L, L_tilde) <= 1 / L


@fixed
@given(positives, positives)
def test_the_helper_inequality_is_tight_to_a_factor_of_two(a, b):
    gamma = 1 / (math.sqrt(a) + b)
    assert a * gamma**2 + b * gamma <= 1 + 1e-12
    assert a * (2 * gamma) ** 2 + b * 2 * gamma >= 1


@fixed
@given(alphas, positives, positives)
def test_the_stepsize_satisfies_the_proof_s_condition(alpha, L, ratio):
    """1/(2 gamma) - L/2 - gamma beta L_tilde^2 / (2 theta) >= 0: what the proof of Theorem 1 needs."""
    L_tilde = L * (1 + ratio)
    gamma = theory.ef21_stepsize(alpha, L, L_tilde)
    drift = theory.beta(alpha) / theory.theta(alpha) * L_tilde**2
    assert gamma**2 * drift + gamma * L <= 1 + 1e-9
    pl = theory.ef21_pl_stepsize(alpha, L, L_tilde, L / 2)
    assert pl**2 * 2 * drift + pl * L <= 1 + 1e-9
    assert pl * L / 2 <= theory.theta(alpha) / 2 * (1 + 1e-12)


@fixed
@given(open_alphas, positives, positives, st.floats(0.01, 1.0), positives, positives, st.integers(1, 1000))
def test_the_theorems_restated(alpha, L, L_tilde, condition, gap, G, T):
    mu, theta = L * condition, 1 - math.sqrt(1 - alpha)
    ratio = math.sqrt(1 - alpha) / theta
    gamma = theory.ef21_stepsize(alpha, L, L_tilde)
    assert gamma == pytest.approx(1 / (L + L_tilde * ratio))
    pl = theory.ef21_pl_stepsize(alpha, L, L_tilde, mu)
    assert pl == pytest.approx(min(1 / (L + L_tilde * math.sqrt(2) * ratio), theta / (2 * mu)))
    assert theory.ef21_bound(alpha, gamma, T, gap, G) == pytest.approx(
        2 * gap / (gamma * T) + G / (theta * T)
    )
    assert theory.ef21_lyapunov(alpha, gamma, gap, G) == pytest.approx(gap + gamma / (2 * theta) * G)
    assert theory.ef21_pl_lyapunov(alpha, pl, gap, G) == pytest.approx(gap + pl / theta * G)
    assert theory.ef21_pl_factor(pl, mu) == pytest.approx(1 - pl * mu)


@pytest.mark.parametrize(
    ("alpha", "L", "L_tilde", "expected"),
    [
        # phishing (d = 68), mushrooms (d = 112), a9a (d = 123) and w8a (d = 300) with Top-1
        (1 / 68, 0.3625510764, 0.3660851028, 0.0201612),
        (1 / 112, 2.7862142339, 3.4932259751, 0.00128201),
        (1 / 123, 1.7719196992, 1.7730670813, 0.00229735),
        (1 / 300, 0.8611993845, 1.0161180584, 0.00164202),
    ],
)
def test_the_stepsizes_of_the_papers_experiments(alpha, L, L_tilde, expected):
    assert theory.ef21_stepsize(alpha, L, L_tilde) == pytest.approx(expected, rel=1e-5)


@fixed
@given(open_alphas, positives, positives, positives, st.floats(0.01, 10))
def test_the_rounds_are_the_fewest_that_the_bound_allows(alpha, L, extra, gap, eps):
    L_tilde = L + extra
    T = theory.ef21_rounds(alpha, L, L_tilde, gap, eps)
    gamma = theory.ef21_stepsize(alpha, L, L_tilde)
    assert theory.ef21_bound(alpha, gamma, T, gap) <= eps**2 * (1 + 1e-9)
    assert T == 1 or theory.ef21_bound(alpha, gamma, T - 1, gap) >= eps**2 * (1 - 1e-9)
    corollary = 4 * L_tilde * gap / (alpha * eps**2)
    assert corollary * (1 + 1e-9) >= T - 1


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.0000001, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    for call in (theory.theta, theory.beta, theory.optimal_s):
        with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\]"):
            call(alpha)
    with pytest.raises(ValueError, match="alpha"):
        theory.ef21_stepsize(alpha, 1.0, 1.0)


def test_other_constants_out_of_range_are_refused():
    with pytest.raises(ValueError, match="L must be positive"):
        theory.ef21_stepsize(0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="L_tilde must be positive"):
        theory.ef21_stepsize(0.5, 1.0, math.inf)
    with pytest.raises(ValueError, match="mu must not exceed L"):
        theory.ef21_pl_stepsize(0.5, 1.0, 1.0, 1.5)
    with pytest.raises(ValueError, match="leave s out"):
        theory.theta(0.5, s=1.0)
    with pytest.raises(ValueError, match="leave s out"):
        theory.beta(0.5, s=0.0)
    with pytest.raises(ValueError, match="rounds must be a whole number"):
        theory.ef21_bound(0.5, 0.1, 0, 1.0)
    with pytest.raises(ValueError, match="G0 must be non-negative"):
        theory.ef21_bound(0.5, 0.1, 1, 1.0, G0=-1.0)
    with pytest.raises(ValueError, match="use ef21_pl_stepsize or less"):
        theory.ef21_pl_factor(2.0, 1.0)


# The theorems, on problems


def top(x, k):
    """Top-k of every row; ties go to the lowest position."""
    kept = np.argsort(-np.abs(x), axis=-1, kind="stable")[:, :k]
    out = np.zeros_like(x)
    np.put_along_axis(out, kept, np.take_along_axis(x, kept, -1), -1)
    return out


def quadratics(seed, n=5, d=20, shift=0.0):
    """f_i(x) = x'A_i x/2 - b_i'x; with a shift the A_i are indefinite, and so is no f_i convex."""
    rng = np.random.default_rng(seed)
    A = np.empty((n, d, d))
    for i in range(n):
        Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
        A[i] = (Q * rng.uniform(0.1, 10.0, d)) @ Q.T
    S = rng.standard_normal((n, d, d)) * shift
    S = S + S.transpose(0, 2, 1)
    return A + S - S.mean(0), rng.standard_normal((n, d))


class Run:
    """EF21 or EF21+ on quadratics; yields the gap f(x^t) - f*, G^t and |grad f(x^t)|^2 before every step."""

    def __init__(self, A, b, k, plus=False, exact_start=False):
        self.A, self.b, self.k, self.plus, self.exact_start = A, b, k, plus, exact_start
        self.mean_A, self.mean_b = A.mean(0), b.mean(0)
        spectrum = np.linalg.eigvalsh(self.mean_A)
        self.mu, self.L = spectrum[0], spectrum[-1]
        self.L_tilde = math.sqrt(np.mean([np.linalg.norm(a, 2) ** 2 for a in A]))
        self.solution = np.linalg.solve(self.mean_A, self.mean_b)
        self.alpha = k / A.shape[-1]

    def __call__(self, gamma, rounds, x):
        def gradients(x):
            return self.A @ x - self.b

        g = gradients(x) if self.exact_start else top(gradients(x), self.k)
        for _ in range(rounds):
            now, off = gradients(x), x - self.solution
            yield 0.5 * off @ self.mean_A @ off, ((g - now) ** 2).sum(-1).mean(), (now.mean(0) ** 2).sum()
            x = x - gamma * g.mean(0)
            new = gradients(x)
            g = g + top(new - g, self.k)
            if self.plus:
                fresh = top(new, self.k)
                worse = ((g - new) ** 2).sum(-1) > ((fresh - new) ** 2).sum(-1)
                g[worse] = fresh[worse]


@pytest.mark.parametrize("plus", [False, True], ids=["ef21", "ef21+"])
@pytest.mark.parametrize(("k", "shift", "seed"), [(1, 0.5, 0), (5, 0.5, 1), (20, 0.0, 2), (3, 0.0, 3)])
def test_theorem_1_holds_at_every_round(plus, k, shift, seed):
    run = Run(*quadratics(seed, shift=shift), k, plus=plus)
    assert run.mu > 0
    if shift:
        assert np.linalg.eigvalsh(run.A)[:, 0].min() < 0
    gamma = theory.ef21_stepsize(run.alpha, run.L, run.L_tilde)
    x0 = np.random.default_rng(seed).standard_normal(20)
    states = list(run(gamma, 400, x0))
    gap0, G0, _ = states[0]
    for before, after in itertools.pairwise(states):
        if after[0] < ROUNDING * gap0:
            break
        fall = gamma / 2 * before[2]
        value = theory.ef21_lyapunov(run.alpha, gamma, *before[:2])
        assert theory.ef21_lyapunov(run.alpha, gamma, *after[:2]) <= (value - fall) + 1e-12 * value
    means = np.cumsum([norm2 for _, _, norm2 in states]) / np.arange(1, 401)
    bounds = np.array([theory.ef21_bound(run.alpha, gamma, T, gap0, G0) for T in range(1, 401)])
    assert np.all(means <= bounds)
    # The bound is not so loose that it says nothing: it is within a factor of ten of what was measured.
    assert np.max(means / bounds) > 0.1


@pytest.mark.parametrize("plus", [False, True], ids=["ef21", "ef21+"])
@pytest.mark.parametrize(("k", "seed"), [(1, 0), (5, 1), (20, 2)])
def test_theorem_2_holds_at_every_round(plus, k, seed):
    run = Run(*quadratics(seed), k, plus=plus)
    gamma = theory.ef21_pl_stepsize(run.alpha, run.L, run.L_tilde, run.mu)
    factor = theory.ef21_pl_factor(gamma, run.mu)
    states = list(run(gamma, 400, np.random.default_rng(seed).standard_normal(20)))
    values = [theory.ef21_pl_lyapunov(run.alpha, gamma, gap, G) for gap, G, _ in states]
    for before, after in itertools.pairwise(values):
        if after < ROUNDING * values[0]:
            break
        assert after <= factor * before * (1 + 1e-12)
    assert values[-1] < 0.9 * values[0]


def test_theorem_1_fails_far_above_its_stepsize():
    """The runs above can fail: where the stepsize is much too large, the Lyapunov function grows."""
    run = Run(*quadratics(0), 1)
    gamma = 100 * theory.ef21_stepsize(run.alpha, run.L, run.L_tilde)
    values = [theory.ef21_lyapunov(run.alpha, gamma, gap, G) for gap, G, _ in run(gamma, 60, np.ones(20))]
    assert max(b / a for a, b in itertools.pairwise(values)) > 1.01


def test_the_lemma_on_theta_and_beta_holds():
    """G^{t+1} <= (1 - theta) G^t + beta |new - old|^2 for states of any kind, nearly attained by some."""
    rng = np.random.default_rng(0)
    d, k = 4, 1
    alpha, closest = k / d, 0.0
    theta, beta = theory.theta(alpha), theory.beta(alpha)
    for _ in range(2000):
        # All coordinates of new - g nearly equal is the worst case of Top-k.
        error = np.ones((1, d)) + rng.standard_normal((1, d)) * rng.uniform(0, 1)
        moved = np.ones((1, d)) * rng.uniform(0, 1) + rng.standard_normal((1, d)) * 0.05
        left = ((error + moved - top(error + moved, k)) ** 2).sum()
        right = (1 - theta) * (error**2).sum() + beta * (moved**2).sum()
        assert left <= right * (1 + 1e-12)
        closest = max(closest, left / right)
    assert closest > 0.98


@pytest.mark.parametrize("plus", [False, True], ids=["ef21", "ef21+"])
def test_ef21_solves_the_problem_on_which_dcgd_diverges(plus):
    """Example 1 of On Biased Compression: three nodes, Top-1, f strongly convex with minimiser 0."""
    a = np.array([[-3.0, 2, 2], [2, -3, 2], [2, 2, -3]])
    A = 2 * a[:, :, None] * a[:, None, :] + 0.5 * np.eye(3)
    run = Run(A, np.zeros((3, 3)), 1, plus=plus)
    assert (run.mu, run.L, run.L_tilde) == pytest.approx((7 / 6, 103 / 6, 34.5))

    eta, x = 0.01, np.ones(3)
    for _ in range(10):
        x = x - eta * top(A @ x, 1).mean(0)
    assert x == pytest.approx(np.full(3, (1 + 11 * eta / 6) ** 10), rel=1e-12)

    gamma = theory.ef21_pl_stepsize(1 / 3, run.L, run.L_tilde, run.mu)
    factor = theory.ef21_pl_factor(gamma, run.mu)
    bound, smallest = None, math.inf
    for gap, G, norm2 in run(gamma, 12000, np.ones(3)):
        value = theory.ef21_pl_lyapunov(1 / 3, gamma, gap, G)
        bound = value if bound is None else bound * factor
        assert value <= bound * (1 + 1e-9)
        smallest = min(smallest, norm2)
        if smallest < 1e-20:
            break
    assert smallest < 1e-20


@settings(fixed, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_theorem_2_holds_on_whatever_small_problem(seed, k):
    run = Run(*quadratics(seed, n=3, d=6), k, exact_start=True)
    gamma = theory.ef21_pl_stepsize(run.alpha, run.L, run.L_tilde, run.mu)
    values = [
        theory.ef21_pl_lyapunov(run.alpha, gamma, gap, G)
        for gap, G, _ in run(gamma, 30, np.random.default_rng(seed).standard_normal(6))
    ]
    factor = theory.ef21_pl_factor(gamma, run.mu)
    assert all(b <= factor * a * (1 + 1e-12) for a, b in itertools.pairwise(values))
