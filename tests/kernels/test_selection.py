"""Exact selection against a stable sort."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.kernels import top_k_positions
from laconic.kernels.reference.selection import top_k_positions_reference

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


def with_odd_ones(x):
    x[::7], x[1::9] = torch.nan, -torch.inf
    return x


LONG = (1 << 14, 20_001, 70_003)
HOSTILE = {
    "normal": lambda d, g: torch.randn(d, generator=g),
    "heavy tails": lambda d, g: torch.randn(d, generator=g) ** 7,
    "all zero": lambda d, g: torch.zeros(d),
    "all equal": lambda d, g: torch.full((d,), -2.0),
    "ascending": lambda d, g: torch.arange(d, dtype=torch.float32),
    "descending": lambda d, g: -torch.arange(d, dtype=torch.float32).flip(0),
    "one huge": lambda d, g: torch.nn.functional.one_hot(torch.tensor(5), d).float() * 1e38,
    "few values": lambda d, g: torch.randint(-3, 4, (d,), generator=g).float(),
    "subnormal": lambda d, g: torch.randn(d, generator=g) * 1e-42,
    "not finite": lambda d, g: with_odd_ones(torch.randn(d, generator=g)),
    "all NaN": lambda d, g: torch.full((d,), torch.nan),
    "largest NaN": lambda d, g: torch.full((d,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32),
    "mostly zero": lambda d, g: torch.where(torch.arange(d) < d // 50, torch.randn(d, generator=g), 0),
    "large at the end": lambda d, g: torch.where(torch.arange(d) > d - 200, 9.0, torch.randn(d, generator=g)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("d", LONG)
def test_compiled_loops_equal_the_reference(name, d):
    x = HOSTILE[name](d, torch.Generator().manual_seed(d))
    for k in (1, 2, d // 1000, d // 100, d // 10, d // 3, d - 1):
        assert torch.equal(top_k_positions(x, k), top_k_positions_reference(x, k)), k


@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_loops_take_batches_and_strides(dtype):
    x = torch.randn(2, 3, 1 << 14, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(top_k_positions(x, 100), top_k_positions_reference(x, 100))
    flipped = x.transpose(0, 1)
    assert torch.equal(top_k_positions(flipped, 100), top_k_positions_reference(flipped, 100))


def test_two_threads_at_once():
    rows = [torch.randn(1 << 16, generator=torch.Generator().manual_seed(s)) for s in range(8)]
    expected = [top_k_positions_reference(row, 700) for row in rows]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            found = list(pool.map(lambda row: top_k_positions(row, 700), rows))
            assert all(map(torch.equal, found, expected))
