"""Vectors on which a constant is attained: a constant that is too careful fails here.

Expectations are exact where the draw has few outcomes, else means over many draws.
"""

import math

import pytest
import torch

import laconic as lc
from laconic.kernels import Stream

DRAWS = 40_000


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def moments(compressor, x, draws=DRAWS):
    """Means of |C|^2, <C, x> and |C - x|^2 over |x|^2, and the mean of C."""
    n = draws if compressor.random else 1
    c = compressor.compress(x.expand(n, -1), Stream(seed=torch.arange(n))).dense()
    x2 = (x * x).sum()
    square, inner, error = (c * c).sum(-1), (c * x).sum(-1), ((c - x) ** 2).sum(-1)
    return *(float((q / x2).mean()) for q in (square, inner, error)), c.mean(0)


def two_point_moments(compressor, t):
    """Exact E C(t)^2 / t^2 and E C(t) / t of unbiased rounding of one number, from its two outcomes."""
    low, high = sorted({float(v) for v in compressor.compress(
        torch.full((4096, 1), t, dtype=torch.float64), Stream(seed=torch.arange(4096))
    ).dense().unique()})  # fmt: skip
    p = (t - low) / (high - low)
    return ((1 - p) * low**2 + p * high**2) / t**2, low, high


@pytest.mark.parametrize(("d", "k"), [(2, 1), (10, 3), (64, 1), (64, 63)])
def test_top_k_loses_most_on_ones(d, k):
    square, inner, error, _ = moments(lc.TopK(k), torch.ones(d, dtype=torch.float64))
    assert error == pytest.approx(1 - k / d, rel=1e-15)
    assert square == inner == pytest.approx(k / d, rel=1e-15)


@pytest.mark.parametrize(("d", "k"), [(2, 1), (5, 2), (10, 7)])
def test_rand_k_has_its_variance_on_every_vector(d, k):
    x = torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    square, inner, error, mean = moments(lc.RandK(k), x, 10_000)
    assert error == pytest.approx(d / k - 1, rel=0.04)
    assert square == pytest.approx(d / k, rel=0.04)
    assert inner == pytest.approx(1, rel=0.04)
    assert torch.allclose(mean, x, atol=0.1)
    biased = moments(lc.RandK(k, unbiased=False), x, 10_000)
    assert biased[2] == pytest.approx(1 - k / d, rel=0.04)
    # On ones every draw alike: exact, and zeta is attained.
    square, inner, error, _ = moments(lc.RandK(k), torch.ones(d, dtype=torch.float64), draws=50)
    assert (square, inner, error) == pytest.approx((d / k, 1, d / k - 1), rel=1e-12)


def test_random_sparsification_is_worst_on_its_rarest_coordinate():
    square, inner, error, _ = moments(lc.RandomSparsification([0.9, 0.2, 0.5]), vector(0, -3, 0))
    assert square == pytest.approx(0.2, abs=0.01)
    assert inner == square
    assert error == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("x", [vector(1, -2, 3), vector(0.1, 0, -5, 2), vector(1, 1, 1, 1)])
def test_adaptive_random_has_the_exact_moments(x):
    """E|C|^2 = <E C, x> = |x|_3^3 / |x|_1."""
    square, inner, _, mean = moments(lc.AdaptiveRandom(), x)
    exact = float((x.abs() ** 3).sum() / x.abs().sum() / (x * x).sum())
    assert square == pytest.approx(exact, rel=0.02)
    assert inner == square
    assert torch.allclose(mean, x * x.abs() / x.abs().sum(), atol=0.03)


def test_adaptive_random_loses_most_on_ones():
    _, _, error, _ = moments(lc.AdaptiveRandom(), torch.ones(16, dtype=torch.float64), draws=10)
    assert error == pytest.approx(1 - 1 / 16, rel=1e-12)


@pytest.mark.parametrize("base", [1.5, 2.0, 4.0])
def test_unbiased_rounding_is_worst_at_the_harmonic_mean(base):
    compressor = lc.UnbiasedRounding(base)
    point = 2 * base / (1 + base)
    ratio, low, high = two_point_moments(compressor, point)
    assert (low, high) == (1.0, base)
    assert ratio == pytest.approx(compressor.constants(1).zeta, rel=1e-12)
    square, inner, _, _ = moments(compressor, vector(point))
    assert square == pytest.approx(ratio, rel=0.02)
    assert inner == pytest.approx(1.0, rel=0.02)


def test_natural_compression_attains_nine_eighths_at_four_thirds():
    ratio, low, high = two_point_moments(lc.NaturalCompression(), 4 / 3)
    assert (low, high) == (1.0, 2.0)
    assert ratio == pytest.approx(9 / 8, rel=1e-12)
    assert moments(lc.NaturalCompression(), vector(4 / 3))[0] == pytest.approx(9 / 8, rel=0.005)


def test_a_general_grid_is_worst_in_its_widest_gap():
    compressor = lc.UnbiasedRounding(grid=(1.0, 1.5, 2.0))
    ratio, low, high = two_point_moments(compressor, 1.2)
    assert (low, high) == (1.0, 1.5)
    assert ratio == pytest.approx(compressor.constants(1).zeta, rel=1e-12)


@pytest.mark.parametrize("base", [1.5, 2.0, 4.0])
def test_biased_rounding_attains_all_its_constants_at_the_middle(base):
    compressor = lc.BiasedRounding(base)
    c = compressor.constants(1)
    middle = (1 + base) / 2
    up = float(compressor.compress(vector(middle)).dense())
    down = float(compressor.compress(vector(math.nextafter(middle, 0))).dense())
    assert (up, down) == (base, 1.0)
    assert up / middle == pytest.approx(c.beta, rel=1e-12)
    assert down / middle == pytest.approx(c.gamma, rel=1e-12)
    assert (down / middle) ** 2 == pytest.approx(c.alpha, rel=1e-12)
    assert (1 - up / middle) ** 2 == pytest.approx(1 - 1 / c.delta, rel=1e-9)


def test_ternary_attains_its_zeta():
    d = 64
    x = torch.full((d,), 1 / (1 + math.sqrt(d)), dtype=torch.float64)
    x[0] = 1.0
    exact = float(x.max() * x.sum() / (x * x).sum())
    assert exact == pytest.approx(lc.Ternary().constants(d).zeta, rel=1e-12)
    square, inner, _, mean = moments(lc.Ternary(), x)
    assert square == pytest.approx(exact, rel=0.01)
    assert inner == pytest.approx(1, rel=0.01)
    assert torch.allclose(mean, x, atol=0.02)


def test_exponential_dithering_attains_the_rounding_part():
    """With the largest magnitude as norm and no number in the lowest bin, 9/8 is nearly reached."""
    d = 200
    x = torch.full((d,), 2 / 3, dtype=torch.float64)
    x[0] = 1.0
    compressor = lc.NaturalDithering(20, math.inf)
    zeta = compressor.constants(d).zeta
    assert zeta == pytest.approx(9 / 8, rel=1e-3)
    assert moments(compressor, x, 2000)[0] >= 0.99 * zeta


def test_random_dithering_comes_near_its_zeta():
    """One level, p = 2 and equal numbers: E|C|^2 = |x|_2 |x|_1 = sqrt(d) |x|^2, against 1 + sqrt d."""
    d = 400
    square, inner, _, _ = moments(lc.RandomDithering(1, 2.0), torch.ones(d, dtype=torch.float64), 4000)
    assert square == pytest.approx(math.sqrt(d), rel=0.02)
    assert inner == pytest.approx(1, rel=0.05)
    assert square >= 0.93 * lc.RandomDithering(1, 2.0).constants(d).zeta


def test_scaled_sign_loses_most_on_a_spike():
    d = 32
    x = torch.zeros(d, dtype=torch.float64)
    x[5] = -7.0
    square, inner, error, _ = moments(lc.ScaledSign(), x)
    assert (square, inner) == pytest.approx((1 / d, 1 / d))
    assert error == pytest.approx(1 - 1 / d)


def test_scaled_sign_on_gaussian_vectors():
    """delta = d|x|^2 / |x|_1^2, pi/2 in the limit."""
    x = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = moments(lc.ScaledSign(), x)[2]
    assert 1 / (1 - error) == pytest.approx(math.pi / 2, rel=0.01)


def test_cast_attains_its_unit_roundoff():
    x = torch.tensor([1.0 + 2.0**-8], dtype=torch.float32)
    error = moments(lc.Cast(torch.bfloat16), x)[2]
    assert error >= 0.99 * (1 - 1 / lc.Cast(torch.bfloat16).constants(1).delta)


def test_a_chain_attains_the_product():
    """Top-1 of two equal numbers at the harmonic mean: gamma = 1/2, delta as the rule says."""
    both = lc.TopK(1) >> lc.NaturalCompression()
    x = vector(4 / 3, 4 / 3)
    _, inner, error, _ = moments(both, x)
    c = both.constants(2)
    assert inner == pytest.approx(c.gamma, rel=0.01)
    assert error == pytest.approx(1 - 1 / c.delta, rel=0.01)
    deterministic = lc.TopK(1) >> lc.BiasedRounding(2.0)
    error = moments(deterministic, vector(1.5, 1.5))[2]
    assert error == pytest.approx(1 - 1 / deterministic.constants(2).delta, rel=1e-12)
