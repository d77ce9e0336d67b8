"""Exact selection against a stable sort."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.kernels import top_k_positions

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def oracle(row, k):
    """Stable sort by descending magnitude, NaN above infinity; then ascending positions."""
    key = [math.inf if math.isnan(v) else abs(v) for v in row]
    order = sorted(range(len(row)), key=lambda i: (not math.isnan(row[i]), -key[i]))
    return sorted(order[:k])


special = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.0**-149, -(2.0**-149), 2.0**-24]
number = st.sampled_from(special) | st.floats(width=16)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_against_a_stable_sort(dtype, data):
    rows = data.draw(st.integers(1, 3))
    d = data.draw(st.integers(1, 30))
    k = data.draw(st.integers(1, d))
    pool = data.draw(st.lists(number, min_size=1, max_size=8))
    numbers = data.draw(st.lists(st.sampled_from(pool), min_size=rows * d, max_size=rows * d))
    x = torch.tensor(numbers, dtype=torch.float64).to(dtype).reshape(rows, d)
    found = top_k_positions(x, k)
    assert found.dtype == torch.int64
    assert found.shape == (rows, k)
    for row, positions in zip(x.to(torch.float64).tolist(), found.tolist(), strict=True):
        assert positions == oracle(row, k)
    assert torch.equal(top_k_positions(x[0], k), found[0])


@given(st.lists(st.floats(width=64), min_size=1, max_size=40), st.data())
def test_all_float64_bit_patterns(numbers, data):
    # NaNs with other payloads rank by payload; one NaN stands for them.
    numbers = [math.nan if math.isnan(v) else v for v in numbers]
    k = data.draw(st.integers(1, len(numbers)))
    x = torch.tensor(numbers, dtype=torch.float64)
    assert top_k_positions(x, k).tolist() == oracle(numbers, k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 999, 1000, 4999, 5000])
def test_long_rows_with_many_ties(dtype, k):
    x = torch.randint(-3, 4, (2, 5000), generator=torch.Generator().manual_seed(k)).to(dtype)
    found = top_k_positions(x, k)
    for row, positions in zip(x.to(torch.float64).tolist(), found.tolist(), strict=True):
        assert positions == oracle(row, k)


def test_leading_dimensions_and_strides():
    x = torch.randn(2, 3, 4, 17, generator=torch.Generator().manual_seed(0))
    found = top_k_positions(x, 5)
    assert found.shape == (2, 3, 4, 5)
    turned = top_k_positions(x.transpose(0, 2), 5)
    assert torch.equal(turned.transpose(0, 2), found)
    assert top_k_positions(x.expand(6, 2, 3, 4, 17), 5).shape == (6, 2, 3, 4, 5)
    assert top_k_positions(x, 17)[1, 2, 3].tolist() == list(range(17))


def test_subnormal_magnitudes_are_told_apart():
    x = torch.tensor([1.0, 3.0, -2.0, 0.0]) * 2.0**-149
    assert top_k_positions(x, 2).tolist() == [1, 2]
