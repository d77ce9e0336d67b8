"""BlockTopK, BlockQuantizer and ClippedExponent: what they do, and constants that witnesses nearly attain."""

import math

import pytest
import torch

import laconic as lc


def error(compressor, x):
    """|C(x) - x|^2 / |x|^2, |C(x)|^2 / |x|^2, |C(x)|^2 / <C(x), x> and <C(x), x> / |x|^2."""
    c = compressor.compress(x).dense()
    square, kept, inner = float(x @ x), float(c @ c), float(c @ x)
    return float((c - x) @ (c - x)) / square, kept / square, kept / inner, inner / square


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(("k", "block", "d"), [(1, 4, 12), (3, 4, 10), (0.3, 7, 20), (2, 100, 5), (5, 5, 11)])
def test_block_top_k_is_top_k_of_each_block(k, block, d):
    x = torch.randn(3, d, generator=torch.Generator().manual_seed(d))
    parts = []
    for start in range(0, d, block):
        piece = x[..., start : start + block]
        count = min(k, piece.shape[-1]) if isinstance(k, int) else k
        parts.append(lc.TopK(count).compress(piece).dense())
    compressor = lc.BlockTopK(k, block)
    message = compressor.compress(x)
    assert torch.equal(message.dense(), torch.cat(parts, dim=-1))
    assert message.parts[0].k == compressor.kept(d)


def test_block_top_k_is_tight_on_the_block_that_keeps_the_least():
    compressor = lc.BlockTopK(2, block=8)
    assert compressor.constants(20).contraction == 0.25
    x = double(*[1.0] * 8, *[0.0] * 12)
    assert error(compressor, x)[0] == 0.75
    assert lc.BlockTopK(1, block=8).constants(9).contraction == 1 / 8
    assert lc.BlockTopK(0.5, block=4).constants(5).contraction == 0.5


@pytest.mark.parametrize("arguments", [(0, 4), (5, 4), (1.5, 4), (1, 0), (1, 2.0), (True, 4)])
def test_block_top_k_refuses(arguments):
    with pytest.raises((ValueError, TypeError)):
        lc.BlockTopK(*arguments)


def test_the_smallest_and_the_largest_of_a_block_are_exact():
    x = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    out = lc.BlockQuantizer(3, block=100).compress(x).dense().view(5, 10, 100)
    blocks = x.view(5, 10, 100)
    for pick in ("amin", "amax"):
        exact = getattr(blocks.abs(), pick)(-1)
        assert torch.allclose(getattr(out.abs(), pick)(-1), exact, rtol=3e-7, atol=0)
    step = (blocks.abs().amax(-1, keepdim=True) - blocks.abs().amin(-1, keepdim=True)) / 3
    assert bool(((out - blocks).abs() <= step / 2 * 1.00001).all())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("n", [2, 3, 6, 60, 1024])
def test_block_quantizer_constants_are_nearly_attained(bits, n):
    compressor, steps = lc.BlockQuantizer(bits), 2 ** (bits - 1) - 1
    c = compressor.constants(n)
    half = 1 / (2 * steps)
    down = double(1.0, 0.0, *[half * (1 - 1e-9)] * (n - 2))
    up = double(1.0, 0.0, *[half * (1 + 1e-9)] * (n - 2))
    assert error(compressor, down)[0] == pytest.approx(1 - 1 / c.delta, rel=1e-6, abs=1e-12)
    q = (n - 2) / (4 * steps**2)
    if q >= 1:
        assert error(compressor, down)[3] == pytest.approx(c.gamma, rel=1e-6)
    if q >= 0.25:
        assert error(compressor, up)[2] == pytest.approx(c.beta, rel=1e-6)


@pytest.mark.parametrize(
    "compressor",
    [lc.BlockQuantizer(2), lc.BlockQuantizer(4), lc.ClippedExponent(2), lc.ClippedExponent(4)],
    ids=repr,
)
@pytest.mark.parametrize("d", [2, 3, 10, 200])
def test_constants_hold_where_they_are_attacked(compressor, d):
    c = compressor.constants(d)
    generator = torch.Generator().manual_seed(d)
    for trial in range(300):
        x = torch.rand(d, generator=generator, dtype=torch.float64)
        x = x ** (1 + trial % 7) * 0.75
        x[1:] *= float(torch.rand((), generator=generator))
        x[0] = (0.75, 1.0, 1.4999)[trial % 3]
        if not bool(x.any()):
            continue
        lost, alpha, beta, gamma = error(compressor, x)
        assert lost <= 1 - 1 / c.delta + 1e-9
        assert alpha >= c.alpha - 1e-9
        assert beta <= c.beta + 1e-9
        assert gamma >= c.gamma - 1e-9


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("d", [2, 5, 300])
def test_clipped_exponent_constants_are_nearly_attained(bits, d):
    compressor = lc.ClippedExponent(bits)
    c = compressor.constants(d)
    low = 2.0 ** (2 - 2**bits)
    under, over = low / 2 * (1 - 1e-9), low / 2
    at = error(compressor, double(0.75, *[under] * (d - 1)))
    assert at[0] == pytest.approx(1 - 1 / c.delta, rel=1e-6)
    most = error(compressor, double(1.5 * (1 - 1e-12), *[under] * (d - 1)))
    assert min(at[3], most[3]) == pytest.approx(c.gamma, rel=1e-6)
    assert most[1] == pytest.approx(c.alpha, rel=1e-6)
    assert error(compressor, double(0.75, *[over] * (d - 1)))[2] == pytest.approx(c.beta, rel=1e-6)


def test_clipped_exponent_says_powers_down_to_its_lowest():
    x = double(16, 12, 11.9, 6, 3, 2.99, 2, 1.99, 0, -2)
    expected = double(16, 16, 8, 8, 4, 4, 4, 0, 0, -4)
    assert torch.equal(lc.ClippedExponent(2).compress(x).dense(), expected)
    assert torch.equal(lc.ClippedExponent(2).compress(torch.zeros(4)).dense(), torch.zeros(4))


@pytest.mark.parametrize("make", [lc.BlockQuantizer, lc.ClippedExponent])
@pytest.mark.parametrize("bits", [0, 1, 9, 4.0, True])
def test_bits_out_of_range_are_refused(make, bits):
    with pytest.raises(ValueError, match="bits"):
        make(bits)


def test_bits_a_value():
    """What travels for each value, scales included."""
    d = 100_000
    x = torch.randn(d, generator=torch.Generator().manual_seed(0))
    expected = {
        lc.BlockQuantizer(4): 4.0625,
        lc.BlockQuantizer(8): 8.0625,
        lc.NaturalCompression(): 9,
        lc.ClippedExponent(2): 3,
        lc.ClippedExponent(4): 5,
        lc.Ternary(): 1.6,
        lc.ScaledSign(): 1,
        lc.RandomDithering(8): 5,
        lc.RandomDithering(2): 8 / 3,
        lc.Cast(torch.bfloat16): 16,
        lc.Identity(): 32,
    }
    for compressor, bits in expected.items():
        nbytes = compressor.compress(x, torch.Generator().manual_seed(0)).nbytes
        assert math.isclose(8 * nbytes / d, bits, rel_tol=0.01), compressor
