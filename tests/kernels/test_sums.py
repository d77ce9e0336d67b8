"""Canonical sums against the written order in scalar Python, bit for bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels import (
    canonical_prefix_sums,
    canonical_sum,
    mean_magnitude,
    norm,
    segmented,
    set_threads,
    shifted,
    squared_norm,
)
from laconic.kernels.reference.sums import canonical_sum_reference, norm_reference


def scalar_sum(numbers):
    """Blocks of 4096; 64 lanes that add 64 rows; halves; neighbours. Python's floats are float64."""
    blocks = []
    for start in range(0, max(1, len(numbers)), 4096):
        block = numbers[start : start + 4096]
        block = block + [0.0] * (4096 - len(block))
        lanes = [0.0] * 64
        for row in range(64):
            for lane in range(64):
                lanes[lane] += block[64 * row + lane]
        width = 32
        while width:
            lanes = [lanes[i] + lanes[i + width] for i in range(width)]
            width //= 2
        blocks.append(lanes[0])
    while len(blocks) > 1:
        if len(blocks) % 2:
            blocks.append(0.0)
        blocks = [blocks[i] + blocks[i + 1] for i in range(0, len(blocks), 2)]
    return blocks[0]


def scalar_prefix_sums(numbers):
    reach = 1
    while reach < len(numbers):
        numbers = [v + (numbers[i - reach] if i >= reach else 0.0) for i, v in enumerate(numbers)]
        reach *= 2
    return numbers


def uneven(d, seed, dtype=torch.float64):
    """Numbers of both signs whose sum depends on the order in its last bits."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(d, dtype=torch.float64, generator=generator)
    return (x * torch.exp2(torch.randint(-20, 20, (d,), generator=generator))).to(dtype)


@settings(max_examples=40)
@given(st.integers(1, 200) | st.sampled_from([4095, 4096, 4097, 8192, 12_289, 20_481]), st.integers(0, 99))
def test_the_sum_follows_the_written_order(d, seed):
    x = uneven(d, seed)
    assert float(canonical_sum(x)) == scalar_sum(x.tolist())
    assert canonical_prefix_sums(x[:500]).tolist() == scalar_prefix_sums(x[:500].tolist())


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=70))
def test_the_sum_follows_the_written_order_on_any_numbers(numbers):
    x = torch.tensor(numbers, dtype=torch.float64)
    assert float(canonical_sum(x)) == scalar_sum(numbers)


def test_the_order_matters_on_these_numbers():
    """Else the tests above would pass any sum."""
    x = uneven(20_481, 0)
    assert float(canonical_sum(x)) != sum(x.tolist())
    assert float(canonical_sum(x)) != float(canonical_sum(x.flip(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_narrow_numbers_are_added_in_float64(dtype):
    x = (uneven(5000, 1, torch.float32) / 100).to(dtype)
    found = canonical_sum(x)
    assert found.dtype == torch.float64
    assert float(found) == scalar_sum(x.to(torch.float64).tolist())


def test_rows_are_summed_alone():
    x = uneven(3 * 2 * 4100, 2).reshape(3, 2, 4100)
    found = canonical_sum(x)
    assert found.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            assert float(found[i, j]) == scalar_sum(x[i, j].tolist())
    strided = x.transpose(0, 2)
    assert torch.equal(canonical_sum(strided), canonical_sum(strided.contiguous()))


def test_threads_do_not_change_a_sum():
    x = uneven(1_000_003, 3)
    many = x[:500_000].reshape(5, -1)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(
                (canonical_sum(x), canonical_prefix_sums(x), squared_norm(many), norm(many, 2), norm(x, 1))
            )
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 7.5, math.inf])
@pytest.mark.parametrize("scale", [2.0**-1074, 1e-300, 1e-160, 1.0, 1e160, 1e305])
def test_norms_neither_overflow_nor_vanish(p, scale):
    x = torch.tensor([3.0, -4.0, 0.0, 12.0], dtype=torch.float64) * scale
    exact = {
        1: 19.0,
        1.5: (3**1.5 + 4**1.5 + 12**1.5) ** (1 / 1.5),
        2: 13.0,
        3: (27 + 64 + 1728) ** (1 / 3),
        7.5: (3**7.5 + 4**7.5 + 12**7.5) ** (1 / 7.5),
        math.inf: 12.0,
    }[p] * scale
    assert float(norm(x, p)) == pytest.approx(exact, rel=1e-14, abs=2.0**-1074)


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=40))
def test_norm_2_is_the_square_root_of_the_canonical_sum_of_squares(numbers):
    x = torch.tensor(numbers, dtype=torch.float64)
    _, exponent = math.frexp(max(map(abs, numbers)))
    scaled = [math.ldexp(v, -exponent) for v in numbers]
    assert float(norm(x, 2)) == math.ldexp(math.sqrt(scalar_sum([v * v for v in scaled])), exponent)
    assert float(norm(x, 1)) == scalar_sum([abs(v) for v in numbers])
    assert float(norm(x, math.inf)) == max(map(abs, numbers))
    assert float(squared_norm(x)) == scalar_sum([v * v for v in numbers])


def test_norms_of_zeros_and_rows():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for p, value in [(1, 7.0), (2, 5.0), (math.inf, 4.0)]:
        assert norm(x, p).tolist() == [0.0, value]
        assert norm(x, p).dtype == torch.float64


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-2200, 2200))
def test_shifted_is_ldexp_without_a_detour_through_infinity(number, exponent):
    x = torch.tensor(number, dtype=torch.float64)
    try:
        expected = math.ldexp(number, exponent)
    except OverflowError:
        expected = math.copysign(math.inf, number)
    found = float(shifted(x, torch.tensor(exponent)))
    # Two halves may round twice where the result is subnormal.
    assert found == expected or abs(found - expected) <= 2.0**-1074


def test_a_norm_does_not_depend_on_how_many_rows_are_taken_together():
    """Square roots of vector libraries are not all correctly rounded; NumPy's and Python's are."""
    x = uneven(3 * 2000, 7).reshape(2000, 3)
    together = norm(x, 2)
    assert torch.equal(together, torch.stack([norm(row, 2) for row in x]))
    y = x.abs()
    scale = torch.exp2(torch.frexp(y.amax(-1, keepdim=True))[1].double())
    exact = [math.sqrt(scalar_sum([v * v for v in row])) for row in (y / scale)[:300].tolist()]
    assert (together[:300] / scale[:300, 0]).tolist() == exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 63, 64, 65, 1024, 4095, 4096, 4097, 12_289, 200_003])
def test_compiled_sums_equal_the_plain_ones(d, dtype, monkeypatch):
    monkeypatch.setattr(segmented, "_LONG", 1)
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    for x in (
        uneven(d, 4, dtype),
        uneven(d, 5, dtype) * tiny,
        uneven(d, 6, dtype).clamp(-1, 1) * (huge / 2**20),
    ):
        for threads in (1, 3):
            set_threads(threads)
            try:
                assert torch.equal(canonical_sum(x), canonical_sum_reference(x))
                assert torch.equal(squared_norm(x), canonical_sum_reference(x.double() ** 2))
                for p in (1, 2, math.inf):
                    assert torch.equal(norm(x, p), norm_reference(x, p))
                mean = canonical_sum_reference(x.abs().double() / d)
                assert torch.equal(mean_magnitude(x), mean)
            finally:
                set_threads(None)


def test_compiled_sums_of_rows_and_zeros():
    x = uneven(6 * 3000, 8).reshape(2, 3, 3000)
    x[1, 1] = -0.0
    assert torch.equal(canonical_sum(x), canonical_sum_reference(x))
    for p in (1, 2, math.inf):
        assert torch.equal(norm(x, p), norm_reference(x, p))
    assert not bool(torch.signbit(canonical_sum(x)[1, 1]))
    assert canonical_sum(x[:0]).shape == (0, 3)
