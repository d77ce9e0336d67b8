"""Rounding to levels against exact arithmetic in Python, and compiled loops against the plain definition."""

import bisect
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.formats.grids import ExponentialLevels, GeometricGrid, UniformLevels
from laconic.kernels import (
    Levels,
    Purpose,
    Stream,
    largest_magnitude,
    round_to_levels,
    round_to_signs,
    segmented,
)
from laconic.kernels.levels import base_below

GRIDS = [
    GeometricGrid((1.0, 2.0)),
    GeometricGrid((1.0, 1.1)),
    GeometricGrid((1.0, 1.01)),
    ExponentialLevels(2.0, 8),
    UniformLevels(1),
    UniformLevels(5),
    UniformLevels(70_001),
]


def levels_of(grid, dtype):
    table = torch.cat((torch.zeros(1, dtype=dtype), grid.levels(dtype)))
    return Levels(table, grid.window(dtype))


def compiled(monkeypatch, on):
    monkeypatch.setattr(segmented, "_LONG", 1 if on else 2**62)


@pytest.fixture(params=[True, False], ids=["compiled", "plain"])
def long(request, monkeypatch):
    compiled(monkeypatch, request.param)


@pytest.mark.parametrize("grid", [GeometricGrid((1.0, 2.0)), UniformLevels(5)], ids=repr)
@settings(max_examples=50)
@given(data=st.data())
def test_codes_are_those_of_exact_arithmetic(grid, data):
    """Where differences are exact, as between a number and its neighbouring powers of two or small levels."""
    levels = levels_of(grid, torch.float64)
    numbers = data.draw(
        st.lists(st.integers(-(2**20), 2**20).map(lambda n: n / 2**20), min_size=1, max_size=9)
    )
    draw = Stream(seed=data.draw(st.integers(0, 2**64 - 1)))
    words = draw.words(len(numbers), Purpose.ROUNDING).tolist()
    table = [Fraction(v) for v in levels.table.tolist()]
    nearest, drawn = [], []
    for number, word in zip(numbers, words, strict=True):
        x = Fraction(abs(number))
        below = bisect.bisect_right(table, x) - 1
        above = min(below + 1, levels.top)
        low, high = table[below], table[above]
        sign = -1 if number < 0 else 1
        nearest.append(sign * (above if high - x <= x - low else below))
        share = float((x - low) / (high - low)) if high > low else 0.0
        drawn.append(sign * (above if Fraction(word, 2**32) < Fraction(share) else below))
    x = torch.tensor(numbers, dtype=torch.float64)
    for length in (1, 2**62):
        before, segmented._LONG = segmented._LONG, length
        try:
            if isinstance(grid, GeometricGrid):
                assert round_to_levels(x, levels).tolist() == nearest
                assert round_to_levels(x, levels, draw).tolist() == drawn
            else:
                found = round_to_levels(x, levels, draw)
                assert bool((found - torch.tensor(drawn)).abs().max() <= 1)
        finally:
            segmented._LONG = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_all_levels_and_their_neighbours_have_the_same_codes(grid, dtype, monkeypatch):
    """Every level, the numbers beside it, the middles and the numbers beside those: in any order."""
    levels = levels_of(grid, dtype)
    at = levels.table if levels.top < 10**4 else levels.table[torch.arange(0, levels.top, 97)]
    at = torch.cat((at, at[1:] / 2 + at[:-1] / 2))
    infinity = torch.full_like(at, torch.inf)
    x = torch.cat((at, torch.nextafter(at, infinity), torch.nextafter(at, -infinity)))
    x = x[x.isfinite()]
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    for draw in (None, Stream(seed=4)):
        for some in (x, x[x.abs() >= torch.finfo(dtype).tiny], x[: len(x) // 2] * 2.0**-10):
            found = {}
            for on in (True, False):
                compiled(monkeypatch, on)
                found[on] = round_to_levels(some, levels, draw)
            assert found[True].dtype == found[False].dtype
            assert torch.equal(found[True], found[False])


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(1, torch.int8), (127, torch.int8), (128, torch.int16), (32767, torch.int16), (32768, torch.int32)],
)
def test_codes_are_as_narrow_as_the_number_of_levels_lets_them(top, dtype, long):
    levels = levels_of(UniformLevels(top), torch.float32)
    x = torch.cat((levels.table, -levels.table[1:])).repeat(2, 3)
    expected = torch.cat((torch.arange(top + 1), -torch.arange(1, top + 1))).repeat(2, 3)
    for draw, scale in ((None, None), (Stream(seed=1), torch.tensor([[1.0], [2.0]]))):
        target = x if scale is None else x * scale
        codes = round_to_levels(target, levels, draw, scale=scale)
        assert codes.dtype == dtype
        assert torch.equal(codes.to(torch.int64), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("base", [0, 1, 30, 300, 1500])
def test_up_to_a_base_there_is_only_zero(dtype, base, monkeypatch):
    generator = torch.Generator().manual_seed(base)
    for grid in (GeometricGrid((1.0, 2.0)), GeometricGrid((1.0, 1.1)), GeometricGrid((1.0, 1.5, 2.0))):
        levels = levels_of(grid, dtype)
        if base >= levels.top:
            continue
        near = levels.table[base + 1] * torch.exp2(torch.randn(3000, generator=generator, dtype=dtype) * 2)
        x = near.clamp(max=float(levels.table[-1]))
        for draw in (None, Stream(seed=base)):
            found = {}
            for on in (True, False):
                compiled(monkeypatch, on)
                found[on] = round_to_levels(x, levels, draw, base=torch.tensor([base]))
            assert torch.equal(found[True], found[False])
            kept = found[True][found[True] > 0]
            assert len(kept)
            assert int(kept.min()) > base


def test_a_window_hangs_from_the_largest_number(long):
    levels = Levels(torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 16.0]), window=2)
    assert base_below(torch.tensor([5.0]), levels).tolist() == [2]
    assert round_to_levels(torch.tensor([5.0, 3.0, 2.0, 1.9]), levels).tolist() == [3, 3, 3, 0]


@pytest.mark.parametrize("position", [0, 70_000, 199_999])
def test_the_largest_number_may_come_late(position, monkeypatch):
    """It lies in another thread's share than the tiny numbers whose codes depend on it."""
    levels = levels_of(GeometricGrid((1.0, 2.0)), torch.float32)
    x = torch.full((200_000,), 2.0**-140)
    x[100:120_000] = 1.0
    x[position] = 2.0**126
    kept = x.clone()
    for draw in (None, Stream(seed=2)):
        compiled(monkeypatch, False)
        expected = round_to_levels(x, levels, draw)
        compiled(monkeypatch, True)
        assert torch.equal(round_to_levels(x, levels, draw), expected)
    assert torch.equal(x, kept)


def test_numbers_that_are_not_finite_break_nothing(long):
    """They are refused before; should they come, they get some code of the table."""
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0] * 600)
    for grid in GRIDS:
        levels = levels_of(grid, torch.float32)
        for scale in (None, torch.ones(1)):
            codes = round_to_levels(x, levels, Stream(seed=1), base=torch.zeros(1).long(), scale=scale)
            assert int(codes.to(torch.int64).abs().max()) <= levels.top


def test_signs_and_largest_magnitudes(long):
    x = torch.tensor([[0.0, -0.0, -3.0, 2.0], [1.0, -1.0, -1e-45, 0.0]])
    codes = round_to_signs(x)
    assert codes.dtype == torch.int8
    assert codes.tolist() == [[1, 1, -1, 1], [1, -1, -1, 1]]
    assert largest_magnitude(x).tolist() == [[3.0], [1.0]]
