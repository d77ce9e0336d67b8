"""Philox and rounding kernels against their plain forms, bit for bit."""

import pytest
import torch
from same import numbers, same

from laconic.formats.grids import (
    ClippedPowers,
    ExponentialLevels,
    GeometricGrid,
    Signs,
    UniformLevels,
    level_table,
)
from laconic.kernels import Purpose, Stream, gpu
from laconic.kernels.levels import Levels
from laconic.kernels.reference.rounding import round_to_levels_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
GRIDS = [
    GeometricGrid((1.0, 2.0)),
    GeometricGrid((1.0, 1.5, 2.0)),
    ClippedPowers(3),
    ExponentialLevels(2.0, 5),
    UniformLevels(1),
    UniformLevels(7),
    UniformLevels(40_000),
    Signs(),
]


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def check(x, grid, draw=None, scale=None, base=None):
    dtype = wide(x.dtype)
    levels = Levels(level_table(grid, dtype, x.device), grid.window(dtype))
    codes = round_to_levels_reference(x, levels, None if draw is None else draw.origin(), base, scale)
    assert same(gpu.round_to_levels(x, levels, draw, base=base, scale=scale), codes)


@pytest.mark.parametrize("count", [1, 5, 1024, 1030])
@pytest.mark.parametrize(
    "stream", [Stream(-7, 3, 2, 1), Stream(2**63 + 5, 2**32 - 1, torch.arange(2), 2**31)]
)
def test_words(count, stream):
    found = gpu.words(stream, count, Purpose.ROUNDING, "cpu")
    assert found.equal(stream.words(count, Purpose.ROUNDING))


def test_purposes_draw_other_words():
    coin, selection = (gpu.words(Stream(1), 8, p, "cpu") for p in (Purpose.COIN, Purpose.SELECTION))
    assert not coin.equal(selection)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_grids(grid, random):
    check(numbers((1200,), torch.float32, 1), grid, Stream(5, 1, 2, 3) if random else None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [GeometricGrid((1.0, 2.0)), GeometricGrid((1.0, 1.25, 2.0))], ids=str)
def test_dtypes_and_rows(grid, dtype):
    x = numbers((3, 130), dtype, 2)
    check(x, grid, Stream(5, 1, torch.arange(3), 3))
    check(x, grid)
    check(x.t(), grid)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("grid", GRIDS[3:6], ids=str)
def test_dithering(grid, dtype, random):
    x = numbers((2, 100), dtype, 5, edges=False)
    x[1] = 0
    scale = gpu.norm(x, 2).to(wide(dtype)).unsqueeze(-1)
    check(x, grid, Stream(3, 2, 1) if random else None, scale=scale)


def test_a_given_base():
    base = torch.tensor([[140], [0]])
    check(numbers((2, 100), torch.float32, 6), GeometricGrid((1.0, 2.0)), Stream(1), base=base)


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs(dtype):
    x = numbers((2, 90), dtype, 7)
    assert same(gpu.round_to_signs(x), torch.where(x < 0, -1, 1).to(torch.int8))


def test_the_largest_magnitude():
    x = numbers((3, 4100), torch.bfloat16, 9)
    assert same(gpu.largest_magnitude(x), x.float().abs().amax(dim=-1, keepdim=True))


def test_what_does_not_fit_is_refused():
    levels = Levels(torch.tensor([0.0, 1.0]))
    x = torch.zeros(2, 4)
    with pytest.raises(TypeError, match="levels"):
        gpu.round_to_levels(x.double(), levels)
    with pytest.raises(ValueError, match="draws for 3 rows"):
        gpu.round_to_levels(x, levels, Stream(0, node=torch.arange(3)))
