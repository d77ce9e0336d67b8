"""The inequalities of deterministic compressors on numbers that hypothesis chooses, exactly."""

import struct
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import laconic as lc

DTYPES = {torch.float64: 64, torch.float32: 32, torch.float16: 16, torch.bfloat16: 32}
DETERMINISTIC = [
    lc.TopK(1),
    lc.TopK(0.4),
    lc.BiasedRounding(2.0),
    lc.BiasedRounding(1.3),
    lc.BiasedRounding(grid=(1, 1.25, 1.5, 1.75, 2)),
    lc.ScaledSign(),
    lc.TopK(0.4) >> lc.BiasedRounding(2.0),
    lc.TopK(0.4) >> lc.ScaledSign(),
    lc.TopK(0.4).scaled(0.5),
]


def largest(dtype, d):
    """Room for rounding up one level and for the sum of magnitudes."""
    return 2.0 ** int(torch.tensor(torch.finfo(dtype).max / (8 * d), dtype=torch.float64).log2())


@st.composite
def adversarial(draw):
    dtype = draw(st.sampled_from(list(DTYPES)))
    d = draw(st.integers(1, 8))
    width = DTYPES[dtype]
    most = largest(torch.float16 if width == 16 else dtype, 8)
    number = st.floats(-most, most, width=width) | st.sampled_from([0.0, -0.0, 1.0, 1.5, -1.5, 3.0])
    if width != 16:
        tiny = torch.finfo(dtype).smallest_normal
        number |= st.floats(-tiny, tiny, width=width)
    pool = draw(st.lists(number, min_size=1, max_size=d))
    numbers = draw(st.lists(st.sampled_from(pool) | number, min_size=d, max_size=d))
    return torch.tensor(numbers, dtype=torch.float64).to(dtype)


def exactly(x):
    return [Fraction(v) for v in x.to(torch.float64).tolist()]


@pytest.mark.parametrize("compressor", DETERMINISTIC, ids=repr)
@settings(max_examples=150)
@given(x=adversarial())
@example(x=torch.ones(5))
@example(x=torch.tensor([0.0, 0.0, 0.0]))
@example(x=torch.tensor([2.0**-149, 2.0**-149, 0.0]))
@example(x=torch.tensor([2.0**-1074, 2.0**1000], dtype=torch.float64))
@example(x=torch.tensor([1.5, 3.0, -6.0, 0.75]))
def test_b1_b2_b3(compressor, x):
    """In rational arithmetic, up to the rounding of C(x) itself."""
    d = len(x)
    c = compressor.constants(d)
    decoded = compressor.compress(x).dense()
    info = torch.finfo(decoded.dtype)
    X, C = exactly(x), exactly(decoded)
    x2, square = sum(v * v for v in X), sum(v * v for v in C)
    inner = sum(a * b for a, b in zip(X, C, strict=True))
    error = sum((a - b) ** 2 for a, b in zip(X, C, strict=True))
    alpha, beta, gamma = Fraction(c.alpha), Fraction(c.beta), Fraction(c.gamma)
    lost = 1 - 1 / Fraction(c.delta)
    # What rounding may do to squares and products, in the subnormal range too.
    r = 4 * Fraction(info.eps)
    scale = max(x2, square)
    unit = Fraction(info.smallest_normal) * Fraction(info.eps)
    slack = r * scale + 16 * d * unit * (max(map(abs, X)) + max(map(abs, C)) + unit)
    assert alpha * x2 <= square + slack
    assert square <= beta * inner + slack * (1 + beta)
    assert gamma * x2 <= inner + slack
    assert error <= lost * x2 + slack


@given(adversarial(), st.data())
def test_top_k_is_the_best_of_all_selections(x, data):
    """No other k positions hold more of |x|^2, in exact arithmetic."""
    k = data.draw(st.integers(1, len(x)))
    kept = sum(v * v for v in exactly(lc.TopK(k).compress(x).dense()))
    best = sum(sorted((v * v for v in exactly(x)), reverse=True)[:k])
    assert kept == best


@given(st.lists(st.floats(2.0**-120, 2.0**120, width=32), min_size=1, max_size=6))
def test_biased_rounding_to_powers_of_two_picks_the_nearest(numbers):
    """Against an oracle that reads the exponent from the bits."""
    for number in numbers:
        exponent = ((struct.unpack("<I", struct.pack("<f", number))[0] >> 23) & 0xFF) - 127
        low = 2.0**exponent
        nearest = low if number - low < 2 * low - number else 2 * low
        assert float(lc.BiasedRounding(2.0).compress(torch.tensor([-number])).dense()) == -nearest
