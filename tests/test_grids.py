"""Levels, the window of a row, symbols, and grids described on the wire."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic as lc
from laconic.compressors._quantizer import levels_of
from laconic.formats import Kind
from laconic.formats.grids import (
    BlockLevels,
    ClippedPowers,
    ExponentialLevels,
    GeometricGrid,
    Grid,
    Signs,
    UniformLevels,
    grid_of,
    level_table,
)
from laconic.formats.sizes import value_bytes
from laconic.kernels import Stream, round_to_levels
from laconic.kernels.levels import base_below, bracket
from laconic.wire._values import level_count

CPU = torch.device("cpu")
POWERS = GeometricGrid((1.0, 2.0))


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float32, -149, 127), (torch.float64, -1074, 1023)])
def test_powers_of_two_are_all_there(dtype, low, high):
    levels = POWERS.levels(dtype)
    assert levels.dtype == dtype
    assert levels.to(torch.float64).tolist() == [2.0**j for j in range(low, high + 1)]
    table = level_table(POWERS, dtype, CPU)
    assert table[0] == 0
    assert torch.equal(table[1:], levels)


def test_natural_compression_takes_9_and_12_bits():
    """A sign and 8 exponent bits of float32, 11 of float64."""
    assert POWERS.window(torch.float32) == 255
    assert POWERS.symbols(torch.float32) == 511
    assert POWERS.window(torch.float64) == 2047
    assert POWERS.symbols(torch.float64) == 4095
    for dtype, width in ((torch.float32, 9), (torch.float64, 12)):
        assert (POWERS.symbols(dtype) - 1).bit_length() == width
        assert value_bytes(Kind(dtype, grid=POWERS), 800) == 100 * width


def test_a_period_repeats():
    levels = GeometricGrid((1.0, 1.25, 1.5, 1.75, 2.0)).levels(torch.float64)
    near = levels[(levels >= 0.5) & (levels <= 4)].tolist()
    assert near == [0.5, 0.625, 0.75, 0.875, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4]
    shifted = GeometricGrid((3.0, 6.0)).levels(torch.float64)
    assert {0.75, 1.5, 3.0, 6.0, 12.0} <= set(shifted.tolist())


@given(st.lists(st.floats(1.01, 50), min_size=1, max_size=3), st.sampled_from([torch.float32, torch.float64]))
def test_levels_increase_and_cover_the_range(ratios, dtype):
    period = [1.0]
    for r in ratios:
        period.append(period[-1] * r)
    levels = GeometricGrid(tuple(period)).levels(dtype).to(torch.float64)
    info = torch.finfo(dtype)
    assert bool((levels.diff() > 0).all())
    assert bool(torch.isfinite(levels).all())
    assert float(levels[-1]) * period[-1] >= info.max / 1.001
    # float64 levels are divided until the quotient rounds back to the level.
    smallest = info.smallest_normal * info.eps
    stalled = 0 if dtype == torch.float32 else smallest / (1 - 1 / period[-1])
    assert 0 < float(levels[0]) <= smallest * period[-1] * 1.001 + stalled
    # Between normal neighbours no ratio is wider than the widest of the period.
    normal = levels[levels >= info.smallest_normal]
    assert float((normal[1:] / normal[:-1]).max()) <= max(ratios) * (1 + max(1e-10, 4 * info.eps))


def test_dithering_levels():
    assert ExponentialLevels(2.0, 4).levels(torch.float32).tolist() == [0.125, 0.25, 0.5, 1.0]
    third = ExponentialLevels(3.0, 3).levels(torch.float64).tolist()
    assert third == [1.0 / 3.0 / 3.0, 1.0 / 3.0, 1.0]
    assert UniformLevels(4).levels(torch.float64).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert Signs().levels(torch.float32).tolist() == [1.0]
    for grid, symbols in [(ExponentialLevels(2.0, 4), 9), (UniformLevels(1), 3), (Signs(), 2)]:
        assert grid.symbols(torch.float32) == symbols
        assert grid.window(torch.float32) is None


@pytest.mark.parametrize(
    "grid", [POWERS, GeometricGrid((1.0, 1.5, 2.0)), ExponentialLevels(1.5, 7), UniformLevels(3), Signs()]
)
def test_a_tag_and_parameters_give_the_grid_back(grid):
    assert isinstance(grid, Grid)
    assert grid_of(grid.tag, grid.parameters) == grid


@pytest.mark.parametrize(
    ("tag", "parameters"),
    [
        (0, ()),
        (1, ()),
        (1, (1.0,)),
        (1, (2.0, 1.0)),
        (1, (0.0, 1.0)),
        (1, (1.0, math.inf)),
        (1, (1.0, math.nan)),
        (1, (1.0, 1.0000001)),
        (2, (2.0,)),
        (2, (1.0, 4.0)),
        (2, (2.0, 0.0)),
        (2, (math.nan, 4.0)),
        (3, (0.0,)),
        (3, (2.0**21,)),
        (3, (math.nan,)),
        (4, (1.0,)),
        (5, ()),
    ],
)
def test_what_describes_no_grid_is_refused(tag, parameters):
    with pytest.raises(ValueError, match="grid"):
        grid_of(tag, parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_neighbours_bracket_each_magnitude(dtype, data):
    width = 32 if dtype == torch.float32 else 64
    top = 2.0 ** (126 if width == 32 else 1022)
    numbers = data.draw(st.lists(st.floats(0, top, width=width), min_size=1, max_size=6))
    x = torch.tensor(numbers, dtype=dtype)
    levels = levels_of(POWERS, x.dtype, CPU)
    below, above = bracket(x, levels, base_below(x.amax(dim=-1, keepdim=True), levels))
    table = level_table(POWERS, dtype, CPU)
    window = POWERS.window(dtype)
    used = set(below.tolist()) | set(above.tolist())
    assert max(used) - min(used - {0}) < window
    for v, b, a in zip(x, below, above, strict=True):
        assert table[b] <= v <= table[a]
        if b > 0:
            assert a == b + 1
            assert math.frexp(float(v))[1] - 1 == math.log2(float(table[b]))


@pytest.mark.parametrize("compressor", [lc.NaturalCompression(), lc.BiasedRounding(2.0)])
def test_a_row_of_wide_range_fits_its_window(compressor):
    """1e38 and 1e-45 in one row: what is 2^-254 of the largest goes to 0 or the span's lowest level."""
    x = torch.tensor([1e38, -1e-45, 1e-38, 1e-42, 0.0])
    codes = compressor.compress(x, Stream(seed=3)).parts[0].values
    used = codes.abs()[codes != 0]
    assert int(used.max() - used.min()) < 255
    c = compressor.compress(x, Stream(seed=3)).dense()
    assert float(c[0]) in (2.0**126, 2.0**127)
    assert bool((c[1:].abs() <= 2.0**-126).all())
    assert c[4] == 0
    # Alone, the small ones keep their levels.
    alone = compressor.compress(x[1:], Stream(seed=3)).dense()
    assert float(alone[0].abs()) == 2.0**-149


@pytest.mark.parametrize("lost", [2.0**-129, 2.0**-128, 1.5 * 2.0**-128])
def test_lost_numbers_stay_unbiased(lost):
    """2^127 down to 2^-127 are the 255 levels of the row; what lies below is 0 or the lowest of them."""
    x = torch.tensor([2.0**127, lost, 0.0])
    c = lc.NaturalCompression().compress(x.expand(4000, -1), Stream(seed=torch.arange(4000))).dense()
    assert c[:, 1].unique().tolist() == [0.0, 2.0**-127]
    assert float(c[:, 1].mean() / 2.0**-127) == pytest.approx(lost / 2.0**-127, rel=0.1)
    assert bool((c[:, 2] == 0).all())
    assert bool((c[:, 0] == 2.0**127).all())


def test_numbers_above_the_highest_level_saturate():
    x = torch.tensor([torch.finfo(torch.float32).max])
    for compressor in (lc.NaturalCompression(), lc.BiasedRounding(2.0), lc.BiasedRounding(10.0)):
        c = float(compressor.compress(x, Stream(seed=0)).dense())
        assert c == float(
            level_table(GeometricGrid((1.0, 10.0 if "10" in repr(compressor) else 2.0)), x.dtype, CPU)[-1]
        )


def test_the_middle_goes_up():
    x = torch.tensor([1.5, math.nextafter(1.5, 0)], dtype=torch.float64)
    codes = round_to_levels(x, levels_of(POWERS, x.dtype, CPU))
    assert (codes - 1 + -1074).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "grid",
    [
        POWERS,
        GeometricGrid((1.0, 1.01, 3.0)),
        ExponentialLevels(3.0, 7),
        UniformLevels(1),
        UniformLevels(128),
        Signs(),
        BlockLevels(2),
        BlockLevels(8),
        ClippedPowers(5),
    ],
    ids=repr,
)
def test_the_number_of_levels_is_known_without_them(grid, dtype):
    assert level_count(grid, dtype) == len(grid.levels(dtype))
