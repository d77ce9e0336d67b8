"""From a feedback's description to its stepsize."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from laconic import theory
from laconic.compressors._constants import Constants


@dataclass(frozen=True)
class Compressor:
    known: Constants

    def constants(self, d):
        return self.known


@dataclass(frozen=True)
class Feedback:
    name: str
    compressor: Compressor
    eta: float = 0.1


def described(name, eta=0.1, **known):
    return Feedback(name, Compressor(Constants(**known)), eta)


TOP = {"alpha": 0.25, "beta": 1.0, "gamma": 0.25, "delta": 4.0}
RAND = {"zeta": 4.0}


@pytest.mark.parametrize("name", ["ef21", "ef21+"])
def test_ef21(name):
    feedback = described(name, **TOP)
    assert theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0) == theory.ef21_stepsize(0.25, 2.0, 3.0)
    with_mu = theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, mu=0.5)
    assert with_mu == theory.ef21_pl_stepsize(0.25, 2.0, 3.0, 0.5)
    assert with_mu < theory.ef21_stepsize(0.25, 2.0, 3.0)


def test_ef21_sgdm():
    assert theory.stepsize(described("ef21-sgdm", eta=1.0, **TOP), d=8, L=2.0, L_tilde=3.0) == 0.25 / 60
    assert theory.stepsize(described("ef21-sgdm", eta=0.01, **TOP), d=8, L=2.0, L_tilde=3.0) == 0.01 / 14
    with pytest.raises(ValueError, match="weight of the new gradient"):
        theory.stepsize(described("ef21-sgdm", eta=0.0, **TOP), d=8, L=2.0, L_tilde=3.0)


def test_ef14():
    feedback = described("ef14", **TOP)
    assert theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, mu=0.5, nodes=1) == pytest.approx(
        1 / (14 * 8 * 2)
    )
    assert theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, mu=0.5, L_max=5.0) == pytest.approx(
        1 / (14 * 8 * 5)
    )
    safe = theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, mu=0.5, nodes=4)
    assert safe == pytest.approx(1 / (14 * 8 * 6))
    with pytest.raises(theory.NoTheory, match="needs strong convexity; pass mu="):
        theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, nodes=1)
    with pytest.raises(theory.NoTheory, match="pass L_max="):
        theory.stepsize(feedback, d=8, L=2.0, L_tilde=3.0, mu=0.5)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (TOP, 1 / 2),
        ({"delta": 1.0}, 1 / 2),
        (RAND, 1 / 8),
        # The better class wins: B2's complexity is 2, B3's is 8; and with B1 alone B1 is used.
        ({"gamma": 0.5, "beta": 1.0, "delta": 8.0}, 1 / 2),
        ({"gamma": 1.0, "beta": 2.0, "delta": 8.0}, 1 / 4),
        ({"alpha": 0.5, "beta": 2.0}, 1 / 4),
        # Unbiased with zeta < 2 is in B3(1 / (2 - zeta)) too, which is worse.
        ({"zeta": 1.5, "delta": 2.0}, 1 / 3),
    ],
)
def test_dcgd_on_one_node(known, expected):
    assert theory.stepsize(described("dcgd", **known), d=8, L=2.0, L_tilde=2.0, nodes=1) == pytest.approx(
        expected
    )


def test_dcgd_on_several_nodes():
    at = {"d": 8, "L": 2.0, "L_tilde": 3.0}
    for exact in ({"delta": 1.0}, {"zeta": 1.0}):
        assert theory.stepsize(described("dcgd", **exact), **at) == 0.5
    unbiased = described("dcgd", **RAND)
    assert theory.stepsize(unbiased, **at, mu=0.1, nodes=4, L_max=5.0) == pytest.approx(
        1 / (2 + 2 * 5 * 3 / 4)
    )
    assert theory.stepsize(unbiased, **at, mu=0.1, nodes=4) == pytest.approx(1 / (2 + 2 * 6 * 3 / 4))
    with pytest.raises(theory.NoTheory, match=r"may diverge .* Example 1\); use EF21"):
        theory.stepsize(described("dcgd", **TOP), **at, mu=0.1, nodes=4)
    with pytest.raises(theory.NoTheory, match="pass mu="):
        theory.stepsize(unbiased, **at, nodes=4)
    with pytest.raises(theory.NoTheory, match="pass nodes="):
        theory.stepsize(unbiased, **at, mu=0.1)
    with pytest.raises(theory.NoTheory, match="none of B1, B2, B3 and U"):
        theory.stepsize(described("dcgd"), **at, nodes=1)


def test_unbiased_dcgd_contracts_to_the_floor_that_is_stated():
    """E|x^{k+1} - x*|^2 <= (1 - eta mu) |x^k - x*|^2 + 2 eta^2 omega D / n, the expectation being exact."""
    rng = np.random.default_rng(0)
    n, d, k = 4, 6, 2
    omega = d / k - 1
    closest = 0.0
    for _ in range(200):
        A = np.empty((n, d, d))
        for i in range(n):
            Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
            A[i] = (Q * rng.uniform(0.0, 3.0, d)) @ Q.T
        b = rng.standard_normal((n, d)) * rng.choice([0.1, 1.0, 10.0])
        spectrum = np.linalg.eigvalsh(A.mean(0))
        L, mu = spectrum[-1], spectrum[0]
        norms = np.linalg.eigvalsh(A)[:, -1]
        solution = np.linalg.solve(A.mean(0), b.mean(0))
        D = ((A @ solution - b) ** 2).sum(-1).mean()
        eta = theory.stepsize(
            described("dcgd", zeta=d / k),
            d=d,
            L=L,
            L_tilde=math.sqrt((norms**2).mean()),
            mu=mu,
            nodes=n,
            L_max=norms.max(),
        )
        x = solution + rng.standard_normal(d)
        g = A @ x - b
        off = x - solution
        # Rand-k: E C(g) = g and E|C(g) - g|^2 = omega |g|^2, exactly; the nodes' draws are independent.
        after = ((off - eta * g.mean(0)) ** 2).sum() + eta**2 * omega * (g**2).sum() / n**2
        bound = (1 - eta * mu) * (off @ off) + 2 * eta**2 * omega * D / n
        assert after <= bound * (1 + 1e-12)
        closest = max(closest, after / bound)
    assert closest > 0.8


@pytest.mark.parametrize("name", ["ef14", "ef21", "ef21+", "ef21-sgdm"])
def test_feedback_needs_a_contractive_compressor(name):
    with pytest.raises(theory.NoTheory, match=r"use compressor\.contractive\(\)"):
        theory.stepsize(described(name, **RAND), d=8, L=1.0, L_tilde=1.0, mu=0.1, nodes=1)


def test_what_is_unknown_or_out_of_range_is_refused():
    with pytest.raises(theory.NoTheory, match="no stepsize theory for 'diana'"):
        theory.stepsize(described("diana", **TOP), d=8, L=1.0, L_tilde=1.0)
    good = described("ef21", **TOP)
    with pytest.raises(ValueError, match="L must be positive"):
        theory.stepsize(good, d=8, L=-1.0, L_tilde=1.0)
    with pytest.raises(ValueError, match="L_tilde must be positive"):
        theory.stepsize(good, d=8, L=1.0, L_tilde=0.0)
    with pytest.raises(ValueError, match="mu must not exceed L"):
        theory.stepsize(good, d=8, L=1.0, L_tilde=1.0, mu=2.0)
    with pytest.raises(ValueError, match="d must be a whole number"):
        theory.stepsize(good, d=0, L=1.0, L_tilde=1.0)
    with pytest.raises(ValueError, match="nodes must be a whole number"):
        theory.stepsize(good, d=8, L=1.0, L_tilde=1.0, nodes=0)
    with pytest.raises(ValueError, match="L_max must be positive"):
        theory.stepsize(described("ef14", **TOP), d=8, L=1.0, L_tilde=1.0, mu=1.0, L_max=0.0)


def test_every_public_name_is_there():
    assert all(hasattr(theory, name) for name in theory.__all__)
    assert theory.__all__ == sorted(theory.__all__)
