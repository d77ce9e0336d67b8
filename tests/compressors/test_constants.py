"""Declared constants: Table 3 of "On Biased Compression" restated, Theorem 6, and the worst vectors."""

import math
from dataclasses import astuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic as lc
from laconic.compressors import Constants
from laconic.compressors._base import scaled_constants, unbiased
from laconic.kernels import Stream

DIMS = (1, 2, 3, 10, 100, 1000)


NONE = math.nan


def declared(compressor, d):
    """(alpha, beta, gamma, delta, zeta) to compare with, NONE where a class does not hold."""
    found = (NONE if value is None else value for value in astuple(compressor.constants(d)))
    return pytest.approx(tuple(found), rel=1e-12, nan_ok=True)


def zeta_of_exponential_rounding(b):
    return 0.25 * (b + 1 / b + 2)


def zeta_of_exponential_dithering(d, b, s, p):
    r = 2 if p > 2 else p
    lowest = d ** (1 / r) * b ** (1 - s)
    return 0.25 * (b + 1 / b + 2) + lowest * min(1, lowest)


def from_zeta(z):
    """Theorem 6.4 with factor 1: (alpha, beta, gamma, delta, zeta)."""
    return (1.0, z, 1.0, 1 / (2 - z) if z < 2 else NONE, z)


@pytest.mark.parametrize("d", DIMS)
def test_table_3_sparsifiers(d):
    for k in {1, -(-d // 3), d}:
        assert (k / d, 1.0, k / d, d / k, NONE) == declared(lc.TopK(k), d)
        assert from_zeta(d / k) == declared(lc.RandK(k), d)
        assert (k / d, 1.0, k / d, d / k, NONE) == declared(lc.RandK(k, unbiased=False), d)
    assert (1 / d, 1.0, 1 / d, float(d), NONE) == declared(lc.AdaptiveRandom(), d)
    p = [0.25 + 0.75 * i / d for i in range(d)]
    assert declared(lc.RandomSparsification(p), d) == (0.25, 1.0, 0.25, 4.0, NONE)
    assert declared(lc.RandomSparsification(0.3), d) == (0.3, 1.0, 0.3, 1 / 0.3, NONE)
    assert from_zeta(1.0) == declared(lc.Identity(), d)


@pytest.mark.parametrize("b", [1.01, 1.5, 2.0, 3.0, 10.0])
def test_table_3_rounding(b):
    assert from_zeta(zeta_of_exponential_rounding(b)) == declared(lc.UnbiasedRounding(b), 7)
    biased = ((2 / (b + 1)) ** 2, 2 * b / (b + 1), 2 / (b + 1), (b + 1) ** 2 / (4 * b), NONE)
    assert biased == declared(lc.BiasedRounding(b), 7)


def test_table_3_general_levels():
    # Ratios 3/2, 4/3, 5/4; and between periods the first level follows the last: 2.5 -> 2.5 * 3/2.
    levels = (1.0, 1.5, 2.0, 2.5)
    pairs = [(1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, 3.75)]
    zeta = max(0.25 * (a / b + b / a + 2) for a, b in pairs)
    assert from_zeta(zeta) == declared(lc.UnbiasedRounding(grid=levels), 5)
    gamma = min(2 * a / (a + b) for a, b in pairs)
    beta = max(2 * b / (a + b) for a, b in pairs)
    delta = max((a + b) ** 2 / (4 * a * b) for a, b in pairs)
    assert (gamma**2, beta, gamma, delta, NONE) == declared(lc.BiasedRounding(grid=levels), 5)


def test_table_3_natural_compression():
    assert from_zeta(9 / 8) == declared(lc.NaturalCompression(), 12)
    assert lc.NaturalCompression().constants(3).omega == 1 / 8
    assert lc.BiasedRounding(2.0).constants(3).delta == pytest.approx(9 / 8)


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
@pytest.mark.parametrize("s", [1, 2, 8])
def test_table_3_dithering(d, p, s):
    for b in (1.5, 2.0, 4.0):
        zeta = zeta_of_exponential_dithering(d, b, s, p)
        assert from_zeta(zeta) == declared(lc.ExponentialDithering(b, s, p), d)
    assert from_zeta(zeta_of_exponential_dithering(d, 2, s, p)) == declared(lc.NaturalDithering(s, p), d)
    r = min(p, 2)
    assert from_zeta(1 + min(d ** (2 / r) / s**2, d ** (1 / r) / s)) == declared(lc.RandomDithering(s, p), d)


@pytest.mark.parametrize("d", DIMS)
def test_baselines(d):
    assert from_zeta((1 + math.sqrt(d)) / 2) == declared(lc.Ternary(), d)
    assert (1 / d, 1.0, 1 / d, float(d), NONE) == declared(lc.ScaledSign(), d)
    # QSGD: omega = min(d / s^2, sqrt(d) / s).
    assert lc.RandomDithering(4, 2).constants(d).omega == pytest.approx(min(d / 16, math.sqrt(d) / 4))
    u = 2.0**-8
    cast = ((1 - u) ** 2, 1 + u, 1 - u, 1 / (1 - u * u), NONE)
    assert cast == declared(lc.Cast(torch.bfloat16), d)


def test_table_3_top_k_then_dithering():
    """Row (k): B1(k/d, zeta), B2(k/d, zeta), delta = (d/k) zeta once divided by zeta, zeta taken at k."""
    d, k = 1000, 10
    both = lc.TopK(k) >> lc.NaturalDithering(8, 2)
    zeta = zeta_of_exponential_dithering(k, 2, 8, 2)
    assert zeta < zeta_of_exponential_dithering(d, 2, 8, 2)
    assert (k / d, zeta, k / d, d / (k * (2 - zeta)), NONE) == declared(both, d)
    assert both.scaled(1 / zeta).constants(d).delta == pytest.approx(d / k * zeta, rel=1e-12)
    # The paper's headline for b = 2 and enough levels: B1(k/d, 9/8), B3(9d / (8k)).
    natural = lc.TopK(k) >> lc.NaturalCompression()
    assert (k / d, 9 / 8, k / d, 8 / 7 * d / k, NONE) == declared(natural, d)
    assert natural.scaled(8 / 9).constants(d).delta == pytest.approx(9 * d / (8 * k), rel=1e-12)
    assert natural.contractive().constants(d).delta == pytest.approx(9 * d / (8 * k), rel=1e-12)


def test_chains_multiply():
    d, k = 60, 6
    both = lc.RandK(k) >> lc.NaturalCompression()
    # Whatever the second does, E|C|^2 is at least d/k |x|^2.
    assert (10.0, *from_zeta(10 * 9 / 8)[1:]) == declared(both, d)
    biased = lc.RandK(k, unbiased=False) >> lc.BiasedRounding(2.0)
    assert declared(biased, d) == (0.1 * 4 / 9, 4 / 3, 0.1 * 2 / 3, 10 * 9 / 8, NONE)
    # Every coordinate may survive, so the second compressor is charged for all of them.
    thinned = (lc.RandomSparsification(0.5) >> lc.Ternary()).constants(d)
    assert thinned.beta == pytest.approx((1 + math.sqrt(d)) / 2)
    assert (lc.TopK(k) >> lc.ScaledSign()).constants(d).delta == pytest.approx(d)


def test_fractions_resolve_before_constants():
    assert lc.TopK(0.01).constants(1000).delta == 100
    assert lc.TopK(0.01).constants(5).delta == 5
    assert lc.TopK(0.3).constants(10).alpha == 0.3


constant = st.floats(0.01, 10)


@given(constant, constant, constant, constant, constant)
def test_scaling_follows_theorem_6(a, b, g, delta, s):
    c = Constants(alpha=a, beta=b, gamma=g, delta=1 + delta)
    scaled = scaled_constants(c, s)
    if s == 1.0:
        assert scaled is c
        return
    assert scaled.alpha == pytest.approx(s * s * a)
    assert scaled.beta == pytest.approx(s * b)
    assert scaled.gamma == pytest.approx(s * g)
    assert scaled.zeta is None
    kept = 1 - (1 - 2 * s * g + s * s * b * g)
    if kept > 1e-9:
        assert scaled.delta == pytest.approx(1 / kept, rel=1e-6)
    elif kept < -1e-9:
        assert scaled.delta is None
    # Theorem 6.2: (1/beta) C in B3(beta/gamma).
    assert scaled_constants(c, 1 / b).delta == pytest.approx(b / g) or b == 1.0


@given(st.floats(1.0, 50.0), st.floats(0.01, 5.0))
def test_scaling_an_unbiased_compressor_follows_theorem_6(zeta, s):
    """Theorem 6.4: s C in B1(s^2, s zeta), B2(s, s zeta), B3(1 / (s (2 - zeta s))) where zeta s < 2."""
    scaled = scaled_constants(unbiased(zeta), s)
    assert (scaled.alpha, scaled.beta, scaled.gamma) == pytest.approx((s * s, s * zeta, s))
    if zeta * s < 2 - 1e-9:
        assert scaled.delta == pytest.approx(1 / (s * (2 - zeta * s)), rel=1e-6)
    elif zeta * s > 2 + 1e-9:
        assert scaled.delta is None
    best = unbiased(zeta) if zeta == 1 else scaled_constants(unbiased(zeta), 1 / zeta)
    assert best.delta == pytest.approx(zeta)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(0.05, 2.0))
def test_the_scaled_inequality_holds_for_biased_rounding(numbers, s):
    x = torch.tensor(numbers, dtype=torch.float64)
    scaled = lc.BiasedRounding(3.0).scaled(s)
    c = scaled.constants(len(numbers))
    if c.delta is None:
        return
    error = float(((scaled.compress(x).dense() - x) ** 2).sum())
    assert error <= (1 - 1 / c.delta) * float((x * x).sum()) * (1 + 1e-12) + 1e-300


def test_contractive_scalings():
    d = 100
    assert lc.RandK(5).contractive() == lc.RandK(5, unbiased=False)
    assert lc.RandK(5, shared=True).contractive().shared
    assert lc.TopK(5).contractive().constants(d) == lc.TopK(5).constants(d)
    ternary = lc.Ternary().contractive()
    assert ternary.constants(d).delta == pytest.approx(5.5)
    assert ternary.constants(d).beta == pytest.approx(1.0)
    # Remark 14: delta = (b+1)^2/(4b) is better than beta/gamma = b, so the factor stays 1.
    assert lc.BiasedRounding(3.0).contractive().constants(d).delta == pytest.approx(16 / 12)
    ones = torch.ones(d)
    drawn = ternary.compress(ones, Stream(seed=1)).dense()
    assert torch.allclose(drawn, ones / 5.5)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_a_factor_must_be_positive(factor):
    with pytest.raises(ValueError, match="positive and finite"):
        lc.TopK(1).scaled(factor)


def test_a_chain_needs_a_sparsifier_and_a_quantiser():
    with pytest.raises(TypeError, match="the first must be a sparsifier"):
        lc.NaturalCompression() >> lc.TopK(1)
    with pytest.raises(TypeError, match="the first must be a sparsifier"):
        lc.TopK(1).scaled(2.0) >> lc.NaturalCompression()
    with pytest.raises(TypeError, match="the second must be a quantizer"):
        lc.TopK(1) >> lc.RandK(1)
    with pytest.raises(TypeError, match="the second must be a quantizer"):
        lc.TopK(2) >> (lc.TopK(1) >> lc.NaturalCompression())
