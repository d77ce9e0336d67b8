"""Top-k against Rand-k on random vectors: Section 4, Lemma 20 and Table 4 of "On Biased Compression"."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import laconic as lc
from laconic.kernels import Stream

# (mean, k) -> savings of Top-k for d = 10^2, ..., 10^5.
TABLE_4 = {
    (0.0, 3): (18.65, 31.10, 43.98, 57.08),
    (0.0, 5): (27.14, 47.70, 69.07, 90.85),
    (2.0, 3): (53.45, 75.27, 95.81, 115.53),
    (2.0, 5): (81.60, 118.56, 153.13, 186.22),
}
ENTRIES = [(mu, k, 10 ** (j + 2), value) for (mu, k), row in TABLE_4.items() for j, value in enumerate(row)]


def expected_savings(mu, k, d):
    """Sum over j < k of the expected square of the j-th largest magnitude of d numbers from N(mu, 1)."""

    def above(t):
        return stats.norm.sf(t - mu) + stats.norm.cdf(-t - mu)

    def integrand(t):
        # E X_(j)^2 is the integral of 2t P(more than j of d exceed t).
        return 2 * t * sum(special.bdtrc(j, d, above(t)) for j in range(k))

    return integrate.quad(integrand, 0, 12, limit=200)[0]


@pytest.mark.parametrize(("mu", "k", "d", "printed"), ENTRIES)
def test_table_4_by_quadrature(mu, k, d, printed):
    assert expected_savings(mu, k, d) == pytest.approx(printed, abs=0.01)


@pytest.mark.parametrize(("mu", "k", "d", "printed"), [e for e in ENTRIES if e[2] <= 10_000])
def test_table_4_through_the_compressor(mu, k, d, printed):
    rows = min(20_000, 12_000_000 // d)
    generator = torch.Generator().manual_seed(d + k)
    x = torch.randn(rows, d, generator=generator) + mu
    (part,) = lc.TopK(k).compress(x).parts
    saved = part.values.to(torch.float64).square().sum(-1).mean()
    assert float(saved) == pytest.approx(printed, rel=0.01)


@pytest.mark.parametrize("k", [3, 5])
def test_rand_k_saves_its_share_of_gaussian_vectors(k):
    d, rows = 100, 20_000
    x = torch.randn(rows, d, generator=torch.Generator().manual_seed(k)) + 2.0
    stream = Stream(seed=torch.arange(rows))
    saved = lc.RandK(k, unbiased=False).compress(x, stream).parts[0].values.square().sum(-1)
    assert float(saved.mean()) == pytest.approx(k * (2.0**2 + 1), rel=0.02)


@pytest.mark.parametrize(("d", "k"), [(5, 1), (20, 5), (100, 30)])
def test_uniform_closed_form(d, k):
    x = torch.rand(40_000, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    lost = (x - lc.TopK(k).compress(x).dense()).square().sum(-1).mean()
    ratio = float(lost / ((1 - k / d) * d / 3))
    assert ratio == pytest.approx((1 - k / (d + 1)) * (1 - k / (d + 2)), rel=0.01)
    saved = lc.TopK(1).compress(x).dense().square().sum(-1).mean()
    assert float(saved / (1 / 3)) == pytest.approx(3 * d / (d + 2), rel=0.01)


@pytest.mark.parametrize("d", [3, 30, 300])
def test_exponential_closed_form(d):
    x = torch.empty(40_000, d, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(d))
    saved = lc.TopK(1).compress(x).dense().square().sum(-1).mean()
    i = np.arange(1, d + 1)
    exact = 0.5 * (1 / i**2).sum() + 0.5 * (1 / i).sum() ** 2
    assert float(saved / 2) == pytest.approx(exact, rel=0.02)
