"""What ``compress`` accepts, what it refuses and in which words, and what a generator gives."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo import ALL_COMPRESSORS

import laconic as lc
from laconic.kernels import Purpose, Stream
from laconic.messages import Message, Part


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.tensor([1.0, math.nan, 2.0]), ValueError, "NaN or infinity"),
        (torch.tensor([1.0, -math.inf, 2.0]), ValueError, "NaN or infinity"),
        (torch.zeros(0), ValueError, r"shape \(\.\.\., d\) with d >= 1, got \(0,\)"),
        (torch.zeros(3, 0), ValueError, r"d >= 1, got \(3, 0\)"),
        (torch.tensor(1.0), ValueError, r"d >= 1, got \(\)"),
        (torch.arange(3), TypeError, r"not on torch\.int64"),
        (torch.ones(3, dtype=torch.complex64), TypeError, r"not on torch\.complex64"),
    ],
    ids=["nan", "inf", "empty", "empty rows", "scalar", "integers", "complex"],
)
def test_what_is_no_vector_is_refused(compressor, x, error, words):
    with pytest.raises(error, match=words):
        compressor.compress(x, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_random_compressors_need_a_generator(compressor):
    x = torch.tensor([1.0, -2.0, 3.0])
    if compressor.random:
        with pytest.raises(ValueError, match=r"is random: pass generator=torch\.Generator"):
            compressor.compress(x)
    else:
        compressor.compress(x)


@pytest.mark.parametrize("make", [lc.TopK, lc.RandK])
def test_k(make):
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"cannot keep k = 4 of 3 coordinates; use k <= 3"):
        make(4).compress(torch.ones(3), generator)
    with pytest.raises(ValueError, match="cannot keep k = 4 of 3"):
        make(4).constants(3)
    for k in (0, -1):
        with pytest.raises(ValueError, match="keeps nothing"):
            make(k)
    for k in (0.0, 1.0, -0.5, 2.0, math.nan):
        with pytest.raises(ValueError, match=r"outside \(0, 1\)"):
            make(k)
    for k in (True, "3", None):
        with pytest.raises(TypeError, match=r"int .* or a float"):
            make(k)
    for fraction, d, kept in [(0.5, 3, 2), (0.01, 100, 1), (0.01, 101, 2), (0.001, 5, 1), (0.1, 30, 3)]:
        assert make(fraction).kept(d) == kept
        assert make(fraction).compress(torch.ones(d), generator).parts[0].k == kept


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match=r"the base .* must exceed 1, got 1"):
        lc.UnbiasedRounding(1.0)
    with pytest.raises(ValueError, match=r"the base .* must exceed 1"):
        lc.BiasedRounding(math.nan)
    with pytest.raises(ValueError, match="at least two positive finite levels"):
        lc.BiasedRounding(grid=(1.0,))
    with pytest.raises(ValueError, match="must increase"):
        lc.UnbiasedRounding(grid=(2.0, 1.0))
    with pytest.raises(ValueError, match="too fine"):
        lc.UnbiasedRounding(1.0000001)
    with pytest.raises(ValueError, match="the base must exceed 1"):
        lc.ExponentialDithering(base=1.0)
    with pytest.raises(ValueError, match=r"reach below 2\^-126"):
        lc.ExponentialDithering(base=2.0, levels=128)
    lc.ExponentialDithering(base=2.0, levels=127)
    for make in (lc.NaturalDithering, lc.RandomDithering, lambda s, p: lc.ExponentialDithering(2.0, s, p)):
        for levels in (0, -1, 2.0, True):
            with pytest.raises(ValueError, match="levels must be an int"):
                make(levels, 2.0)
        for p in (0.5, math.nan):
            with pytest.raises(ValueError, match="p must be at least 1"):
                make(4, p)
    for p in (0.0, 1.5, (0.5, 0.0), ()):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
            lc.RandomSparsification(p)
    with pytest.raises(ValueError, match="2 probabilities for vectors of length 3"):
        lc.RandomSparsification((0.5, 0.5)).compress(torch.ones(3), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="Cast takes"):
        lc.Cast(torch.int8)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_compressors_compare_and_hash_by_their_settings(compressor):
    twin = copy.deepcopy(compressor)
    assert twin == compressor
    assert hash(twin) == hash(compressor)
    assert compressor != lc.TopK(7)


def test_settings_given_as_lists_are_hashable():
    assert lc.RandomSparsification([0.5, 1.0]) == lc.RandomSparsification((0.5, 1.0))
    assert hash(lc.UnbiasedRounding(grid=[1.0, 1.5, 2.0])) == hash(lc.UnbiasedRounding(grid=(1.0, 1.5, 2.0)))


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_a_generator_gives_one_word_and_rows_are_nodes(compressor):
    """``compress(x, generator)`` is ``compress(x, Stream(seed=word, node=row))``, words taken one a call."""
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(9)
    first, second = (compressor.compress(x, generator).dense() for _ in range(2))
    if not compressor.random:
        assert torch.equal(first, second)
        return
    words = torch.Generator().manual_seed(9)
    rows = torch.arange(6).reshape(2, 3)
    for dense in (first, second):
        word = torch.randint(-(2**63), 2**63 - 1, (), generator=words)
        assert torch.equal(compressor.compress(x, Stream(seed=int(word), node=rows)).dense(), dense)
    assert not torch.equal(first, second)


def test_shared_rand_k_keeps_the_same_coordinates_at_all_nodes():
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    stream = Stream(seed=3, node=torch.arange(5))
    shared = lc.RandK(7, shared=True).compress(x, stream).parts[0].positions
    assert bool((shared == shared[0]).all())
    own = lc.RandK(7).compress(x, stream).parts[0].positions
    assert not bool((own == own[0]).all())


def test_a_chain_rounds_what_was_kept_and_scales_before():
    x = torch.tensor([1.0, -3.0, 100.0, 0.5])
    both = (lc.TopK(2) >> lc.BiasedRounding(2.0)).compress(x)
    assert both.dense().tolist() == [0.0, -4.0, 128.0, 0.0]
    stream = Stream(seed=5)
    kept = lc.RandK(2).compress(x, stream)
    chained = (lc.RandK(2) >> lc.BiasedRounding(2.0)).compress(x, stream)
    assert torch.equal(chained.parts[0].positions, kept.parts[0].positions)
    assert torch.equal(chained.dense(), lc.BiasedRounding(2.0).compress(kept.dense()).dense())


def test_rounding_uses_one_uniform_number_a_coordinate():
    """Up where u < fl(fl(x - a) / fl(b - a)); the oracle walks over coordinates."""
    x = torch.tensor([1.25, -2.75, 3.0, 0.3, -5.0, 7.9])
    stream = Stream(seed=11, round=2, node=1)
    uniform = stream.uniform(6, Purpose.ROUNDING)
    expected = []
    for value, u in zip(x.tolist(), uniform.tolist(), strict=True):
        low = 2.0 ** math.floor(math.log2(abs(value)))
        up = u < (abs(value) - low) / low
        expected.append(math.copysign(2 * low if up else low, value))
    assert lc.NaturalCompression().compress(x, stream).dense().tolist() == expected


@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_cast_rounds_as_torch_does_and_saturates(number):
    x = torch.tensor([number])
    rounded = lc.Cast(torch.bfloat16).compress(x).dense()
    assert torch.equal(rounded, x.to(torch.bfloat16).to(torch.float32))
    half = lc.Cast(torch.float16).compress(x).dense()
    assert torch.equal(half, x.clamp(-65504, 65504).to(torch.float16).to(torch.float32))


def test_dithering_by_the_largest_magnitude_keeps_it_exactly():
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    largest = x.abs() == x.abs().amax(-1, keepdim=True)
    for compressor in (lc.RandomDithering(4, math.inf), lc.NaturalDithering(3, math.inf), lc.Ternary()):
        c = compressor.compress(x, Stream(seed=torch.arange(500))).dense()
        assert torch.equal(c[largest], x[largest])


def test_dithering_stays_finite_at_both_ends():
    most, least = torch.finfo(torch.float32).max, 2.0**-149
    for p in (1.0, 2.0, 3.0, math.inf):
        for x in (torch.full((100,), most), torch.full((100,), least), torch.tensor([most, least])):
            for compressor in (lc.NaturalDithering(4, p), lc.RandomDithering(3, p)):
                c = compressor.compress(x, Stream(seed=1)).dense()
                assert bool(torch.isfinite(c).all())
    # Of 100 smallest numbers the 2-norm is 10 of them, a level or 0: nothing is invented.
    c = lc.RandomDithering(1, 2.0).compress(torch.full((100,), least), Stream(seed=1)).dense()
    assert set((c / least).tolist()) == {0.0, 10.0}


def test_scaled_sign_of_zero_is_plus_and_of_huge_numbers_finite():
    assert lc.ScaledSign().compress(torch.tensor([0.0, -2.0])).dense().tolist() == [1.0, -1.0]
    huge = torch.full((10,), torch.finfo(torch.float64).max, dtype=torch.float64)
    assert torch.allclose(lc.ScaledSign().compress(huge).dense(), huge, rtol=1e-14)


def test_adaptive_random_at_both_ends_of_the_range():
    for dtype in (torch.float32, torch.float64):
        info = torch.finfo(dtype)
        for x in (
            torch.full((50,), info.max, dtype=dtype),
            torch.full((50,), info.tiny * info.eps, dtype=dtype),
        ):
            drawn = lc.AdaptiveRandom().compress(x.expand(2000, -1), Stream(seed=torch.arange(2000)))
            positions = drawn.parts[0].positions
            counts = positions.flatten().bincount(minlength=50)
            assert counts.min() > 10
            assert bool((drawn.parts[0].values == x[0]).all())


def test_adaptive_random_never_keeps_a_zero():
    x = torch.tensor([0.0, 1e-30, 0.0, 1.0, 0.0])
    positions = (
        lc.AdaptiveRandom().compress(x.expand(3000, -1), Stream(seed=torch.arange(3000))).parts[0].positions
    )
    assert set(positions.flatten().tolist()) == {3}
    nothing = lc.AdaptiveRandom().compress(torch.zeros(4), Stream(seed=0))
    assert nothing.dense().tolist() == [0.0] * 4


def test_random_sparsification_uses_each_probability():
    p = (1.0, 0.1, 0.5, 0.9)
    c = lc.RandomSparsification(p).compress(torch.ones(20_000, 4), Stream(seed=torch.arange(20_000))).dense()
    assert c.mean(0).tolist() == pytest.approx(p, abs=0.015)
    # Independent coordinates.
    assert float((c[:, 2] * c[:, 3]).mean()) == pytest.approx(0.45, abs=0.015)


def test_a_scaled_message_carries_the_factor():
    message = lc.TopK(1).scaled(0.25).compress(torch.tensor([1.0, 8.0]))
    assert message.dense().tolist() == [0.0, 2.0]
    assert isinstance(message, Message)
    assert isinstance(message.parts[0], Part)
    assert message.scaled(2.0).dense().tolist() == [0.0, 4.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lc.RandomSparsification(0.3) >> lc.ScaledSign(), "number kept varies"),
        (lambda: lc.TopK(5) >> lc.TopK(2).scaled(2.0), "must be a quantizer"),
        (lambda: lc.TopK(5) >> (lc.TopK(2) >> lc.Ternary()), "must be a quantizer"),
        (lambda: lc.TopK(5) >> 3, "must be a quantizer"),
        (lambda: lc.Ternary() >> lc.Ternary(), "must be a sparsifier"),
    ],
)
def test_chains_that_make_no_sense(make, message):
    with pytest.raises(TypeError, match=message):
        make()
