"""What is wrong in print, each with a counterexample; docs/errata.md tells the story."""

import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import laconic
from laconic import theory
from laconic.kernels import Stream
from laconic.papers import EXPERIMENTS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "errata.md").read_text()
SECTIONS = {
    re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"): body
    for title, body in re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
}


def test_every_reference_to_an_erratum_leads_somewhere():
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    sources += [path.read_text() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))]
    named = {anchor for text in sources for anchor in re.findall(r"errata\.md#([\w-]+)", text)}
    assert {"example-2", "figure-3", "top-k-then-dithering"} <= named <= set(SECTIONS)


def test_the_tests_and_experiments_that_are_named_exist():
    assert len(SECTIONS) > 10
    files = {name for body in SECTIONS.values() for name in re.findall(r"`(tests/[\w/]+\.py)`", body)}
    assert [name for name in files if not (ROOT / name).is_file()] == []
    asked = {
        name for body in SECTIONS.values() for name in re.findall(r"laconic reproduce\s+([\w-]+)`", body)
    }
    assert asked
    assert asked <= set(EXPERIMENTS)


@pytest.mark.parametrize(("d", "d1"), [(3, 1), (5, 2), (7, 3)])
def test_example_2_by_counting_subsets(d, d1):
    d2 = d - d1
    b, c = d2 + d2 / d1, d1 + 1 / d2 + 1
    assert b > c + 1
    mean, subsets = np.zeros(d), list(combinations(range(d), d1))
    for subset in subsets:
        a = np.full(d, c)
        a[list(subset)] = -b
        gradient = 2 * a.sum() * a + 1
        kept = np.argsort(-abs(gradient), kind="stable")[:d1]
        assert sorted(kept) == list(subset)
        mean[kept] += gradient[kept] / len(subsets)
    assert mean == pytest.approx(np.full(d, -(2 * b - 1) * d1 / d))
    printed = (2 * b - 1) * d1 / (d2 + 1)
    assert (abs(printed / -mean[0] - 1) > 0.1) == (d1 > 1)


def test_figure_3_has_two_points_that_cannot_be():
    d = 10_000
    x = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x2, x1 = float(x.square().sum()), float(x.abs().sum())

    def log_delta(square, inner):
        return math.log10(square * x2 / inner**2)

    c = laconic.ScaledSign().compress(x).dense()
    sign = log_delta(float(c.square().sum()), float((c * x).sum()))
    assert sign == pytest.approx(math.log10(math.pi / 2), abs=0.01)
    assert sign == pytest.approx(math.log10(d * x2 / x1**2))
    drawn = laconic.Ternary().compress(x.expand(200, -1), Stream(seed=torch.arange(200))).dense()
    ternary = math.log10(float(drawn.square().sum(-1).mean()) / x2)
    assert ternary == pytest.approx(math.log10(float(x.abs().max()) * x1 / x2), abs=0.01)
    assert ternary == pytest.approx(0.5, abs=0.05)
    # Another operator is near what is printed: one level, but relative to the length.
    drawn = (
        laconic.RandomDithering(1, 2.0).compress(x.expand(200, -1), Stream(seed=torch.arange(200))).dense()
    )
    length = math.log10(float(drawn.square().sum(-1).mean()) / x2)
    assert length == pytest.approx(math.log10(math.sqrt(2 * d / math.pi)), abs=0.03)
    # The right point of scaled sign lies below the combination at as many bits.
    both = laconic.TopK(0.14) >> laconic.NaturalDithering(4, math.inf)
    message = both.compress(x.to(torch.float32), torch.Generator().manual_seed(0))
    assert float(message.bits("entropy")) / d == pytest.approx(1.0, abs=0.1)
    c = message.dense().to(torch.float64)
    assert log_delta(float(c.square().sum()), float((c * x).sum())) > sign + 0.05


def test_top_k_then_dithering_is_worse_than_printed_unless_it_is_scaled():
    """On ones every kept number is 1/3 of the length of nine: the harmonic mean of 1/4 and 1/2."""
    d, k, draws = 63, 9, 20_000
    both, x = laconic.TopK(k) >> laconic.NaturalDithering(8, 2.0), torch.ones(63, dtype=torch.float64)
    zeta = laconic.NaturalDithering(8, 2.0).constants(k).zeta
    assert zeta == pytest.approx(9 / 8, abs=1e-3)

    def lost(compressor):
        c = compressor.compress(x.expand(draws, -1), Stream(seed=torch.arange(draws))).dense()
        errors = (c - x).square().sum(-1) / d
        return float(errors.mean()), float(errors.std()) / math.sqrt(draws)

    printed = 1 - k / (d * zeta)
    mean, error = lost(both)
    assert mean > printed + 8 * error
    assert mean == pytest.approx(1 - k / d * (2 - 9 / 8), abs=5 * error)
    assert both.constants(d).delta == pytest.approx(d / (k * (2 - zeta)))
    mean, error = lost(both.scaled(1 / zeta))
    assert mean <= printed + 5 * error
    assert both.contractive().constants(d).delta == pytest.approx(d / k * zeta)


def test_theorem_18_needs_mu():
    curvature, eta = np.array([1.0, 0.1]), 1.0
    x = np.array([0.0, 1.0])
    after = x - eta * curvature * x
    ratio = (curvature * after**2).sum() / (curvature * x**2).sum()
    assert ratio == pytest.approx(0.81)
    printed = 1 - 1.0 * eta * (2 - eta)
    assert printed < ratio <= theory.cgd_b2(gamma=1.0, beta=1.0, L=1.0, mu=0.1).factor(eta)


def test_theorem_19_has_no_exponent():
    x = torch.ones(2, dtype=torch.float64)
    after = x - laconic.TopK(1).compress(x).dense()
    ratio = float(after.square().sum() / x.square().sum())
    factor = theory.cgd_b3(delta=2.0, L=1.0, mu=1.0).factor(1.0)
    assert ratio == factor == 0.5
    assert all(ratio > factor**k for k in (2, 3, 10))


def test_lemma_22_has_alpha_over_beta():
    x = torch.tensor([5.0], dtype=torch.float64)
    compressor = laconic.Identity().scaled(3.0)
    c = compressor.constants(1)
    assert (c.alpha, c.beta) == (9.0, 3.0)
    eta = 1 / c.beta
    after = x - eta * compressor.compress(x).dense()
    fall = float((x**2 - after**2) / 2)
    rest = eta * (1 - eta * c.beta / 2) * float(x**2)
    assert fall == pytest.approx(c.alpha / c.beta * rest)
    assert c.alpha * rest > float(x**2 / 2)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 0.9])
def test_the_root_of_beta_over_theta_is_the_reciprocal_of_the_optimal_s(alpha):
    root = math.sqrt(theory.beta(alpha) / theory.theta(alpha))
    assert root == pytest.approx((1 + math.sqrt(1 - alpha)) / alpha - 1)
    printed = 1 / math.sqrt(1 - alpha) - 1
    assert printed == pytest.approx(theory.optimal_s(alpha))
    assert root * printed == pytest.approx(1)
    if alpha == 0.5:
        assert (root, printed) == pytest.approx((2.414, 0.414), abs=1e-3)


def test_bounded_variance_needs_b_of_1():
    sigma, noise = 2.0, np.array([-2.0, 2.0])
    for gradient in (0.0, 1.0, 10.0):
        second = ((gradient + noise) ** 2).mean()
        assert second == gradient**2 + sigma**2
        assert (second > 0 * gradient**2 + sigma**2) == (gradient != 0)


def test_the_stepsize_of_3pc_under_pl():
    """An estimate whose error is corrected with probability p: A = p, B = 0; f = x^2 / 2."""
    p, mu, L = 0.01, 1.0, 1.0
    printed, right = 1 / max(L, p / (2 * mu)), 1 / max(L, 2 * mu / p)
    assert (printed, right) == (1.0, p / 2)

    def course(gamma, rounds):
        # E x^2, E x e and E e^2 from x = 1 and the estimate 0, whose error is -1; exact.
        xx, xe, ee = 1.0, -1.0, 1.0
        for _ in range(rounds + 1):
            yield xx / 2 + gamma / p * ee
            moved = (1 - gamma) ** 2 * xx - 2 * gamma * (1 - gamma) * xe + gamma**2 * ee
            xx, xe, ee = moved, (1 - p) * ((1 - gamma) * xe - gamma * ee), (1 - p) * ee

    start, *after = course(right, 2000)
    assert after[0] == pytest.approx((1 - right * mu) * start)
    assert all(psi <= (1 - right * mu) ** k * start * (1 + 1e-12) for k, psi in enumerate(after, start=1))
    start, first = course(printed, 1)
    assert (1 - printed * mu) * start == 0 < 1 / 2 < first


def test_ef14_has_one_stepsize():
    gradient, gamma = torch.tensor([3.0, -4.0], dtype=torch.float64), 0.1
    method = laconic.EF14(laconic.Identity())
    sender, receiver = method.sender(2), method.receiver(2, nodes=1)
    step = receiver.receive([sender.send(gradient, stepsize=gamma)])
    assert torch.equal(step, gamma * gradient)


def test_top_k_means_magnitudes():
    x = torch.tensor([1.0, -9.0, 2.0])
    assert laconic.TopK(1).compress(x).dense().tolist() == [0.0, -9.0, 0.0]
