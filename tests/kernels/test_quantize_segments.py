"""Quantisers of many segments in one call against the definitions, segment by segment."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.formats.grids import (
    ClippedPowers,
    ExponentialLevels,
    GeometricGrid,
    UniformLevels,
    level_table,
)
from laconic.kernels import (
    Levels,
    SegmentedInput,
    Stream,
    all_finite,
    cast_segments,
    largest_magnitudes,
    mean_magnitudes,
    norms,
    quantize_block_segments,
    round_segments,
    segmented,
    set_threads,
    sign_segments,
)
from laconic.kernels.reference.blocks import quantize_blocks_reference
from laconic.kernels.reference.rounding import round_to_levels_reference
from laconic.kernels.reference.sums import canonical_sum_reference, norm_reference
from laconic.kernels.tables import SegmentTable, Vectors

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
GRIDS = [
    GeometricGrid((1.0, 2.0)),
    GeometricGrid((1.0, 1.25, 1.5, 2.0)),
    ClippedPowers(3),
    UniformLevels(1),
    UniformLevels(1000),
    ExponentialLevels(2.0, 8),
]
DRAW = Stream(seed=-5, round=3, node=7)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request, monkeypatch):
    monkeypatch.setattr(segmented, "_SHARE", 1 << 13)
    set_threads(request.param)
    yield request.param
    set_threads(None)


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = kinds[found.element_size()]
    assert torch.equal(found.contiguous().view(kind), expected.contiguous().view(kind))


def numbers(numel, dtype, seed, flavour):
    """Normal numbers, among which are those that break shortcuts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(numel, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(dtype).tiny
    if flavour == "zeros":
        x *= 0
    elif flavour == "mixed":
        x = torch.where(torch.rand(numel, generator=generator) < 0.5, x * tiny / 4, x)
    elif flavour == "subnormal":
        x *= tiny / 8
    elif flavour == "large":
        x = x.clamp(-1, 1) * (torch.finfo(dtype).max / 4)
    return x.to(dtype)


FLAVOURS = ["normal", "zeros", "mixed", "subnormal", "large"]


def group(lengths, dtype, *, memory=True, flat=False, seed=0, flavours=FLAVOURS):
    """An input of so many segments, and the numbers of each of them."""
    xs = [numbers(n, dtype, seed + i, flavours[(seed + i) % len(flavours)]) for i, n in enumerate(lengths)]
    ends = np.cumsum(lengths)
    numbers_ = tuple(11 * i + seed % 5 for i in range(len(lengths)))
    starts = tuple((ends - lengths).tolist())
    table = SegmentTable(starts, tuple(lengths), tuple(lengths), numbers_)
    x = Vectors.flat(torch.cat(xs), table.start_array) if flat else Vectors.of(xs)
    if not memory:
        return SegmentedInput.of(x, table), [one.to(wide(dtype)) for one in xs]
    # Memories lie in another order than the segments, with gaps.
    held = torch.randn(2 * sum(lengths), generator=torch.Generator().manual_seed(seed), dtype=wide(dtype))
    places = np.cumsum([0, *(2 * n for n in lengths[:0:-1])])[::-1].copy()
    hs = [held[start : start + n] for start, n in zip(places, lengths, strict=True)]
    return SegmentedInput.of(x, table, Vectors.flat(held, places)), [
        one - h for one, h in zip(xs, hs, strict=True)
    ]


def levels_of(grid, dtype):
    return Levels(level_table(grid, wide(dtype), CPU), grid.window(wide(dtype)))


def each(rows, function):
    return [function(row, i) for i, row in enumerate(rows)]


def check_rounding(inp, rows, grid, draw, scaled):
    levels = levels_of(grid, inp.x.dtype)
    scales = [norm_reference(row, 2).to(inp.dtype).reshape(1) for row in rows]
    scales = [scale.clamp(max=torch.finfo(inp.dtype).max) for scale in scales] if scaled else None
    codes, finite = round_segments(inp, levels, draw, scale=None if scales is None else torch.cat(scales))
    assert finite
    number = inp.numbers.tolist()
    expected = each(
        rows,
        lambda row, i: round_to_levels_reference(
            row,
            levels,
            None if draw is None else draw.at(number[i]).origin(),
            None,
            None if scales is None else scales[i],
        ),
    )
    same(codes, torch.cat(expected))


def check_all(inp, rows):
    same(sign_segments(inp), torch.cat([torch.where(row < 0, -1, 1).to(torch.int8) for row in rows]))
    wides = [row.to(torch.float64) for row in rows]
    means = [canonical_sum_reference(x.abs() / x.numel()) for x in wides]
    same(mean_magnitudes(inp), torch.stack(means))
    for p in (1, 2, math.inf):
        same(norms(inp, p), torch.stack([norm_reference(x, p) for x in wides]))
    same(largest_magnitudes(inp), torch.stack([row.abs().amax() for row in rows]))
    assert all_finite(inp)
    for grid, draw, scaled in (
        (GRIDS[0], DRAW, False),
        (GRIDS[0], None, False),
        (GRIDS[1], DRAW, False),
        (GRIDS[2], None, False),
        (GRIDS[3], DRAW, True),
        (GRIDS[4], DRAW, True),
        (GRIDS[5], DRAW, True),
    ):
        check_rounding(inp, rows, grid, draw, scaled)
    for count, block in ((7, 1024), (127, 100), (3, 3000)):
        *found, finite = quantize_block_segments(inp, count, block)
        expected = [quantize_blocks_reference(row, count, block) for row in rows]
        assert finite
        for one, other in zip(found, zip(*expected, strict=True), strict=True):
            same(one, torch.cat(other))
    for dtype in {torch.bfloat16, torch.float16, torch.float32, inp.dtype}:
        values, finite = cast_segments(inp, dtype)
        most = min(torch.finfo(dtype).max, torch.finfo(inp.dtype).max)
        assert finite
        same(values, torch.cat([row.clamp(-most, most).to(dtype) for row in rows]))


@pytest.mark.parametrize("memory", [False, True], ids=["alone", "memory"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_short_and_long_segments(dtype, memory, threads):
    lengths = [3, 1, 4096, 200_000, 3, 64, 5000, 8192, 1, 4097, 12_289, 2]
    for seed in (0, 1):
        check_all(*group(lengths, dtype, memory=memory, flat=memory, seed=seed))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_lengths(data):
    lengths = data.draw(st.lists(st.integers(1, 5000), min_size=1, max_size=9))
    inp, rows = group(
        lengths,
        data.draw(st.sampled_from(DTYPES)),
        memory=data.draw(st.booleans()),
        flat=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 100)),
    )
    share, segmented._SHARE = segmented._SHARE, 1 << data.draw(st.integers(6, 13))
    set_threads(data.draw(st.integers(1, 3)))
    try:
        check_all(inp, rows)
    finally:
        set_threads(None)
        segmented._SHARE = share


def test_a_thousand_segments_of_three_numbers(threads):
    check_all(*group([3] * 1000, torch.float32))


def test_a_group_of_no_segments():
    table = SegmentTable((), (), (), ())
    inp = SegmentedInput.of_kept(torch.empty(0), table)
    assert all_finite(inp)
    assert sign_segments(inp).shape == mean_magnitudes(inp).shape == norms(inp, 2).shape == (0,)
    assert round_segments(inp, levels_of(GRIDS[0], torch.float32), DRAW)[0].shape == (0,)


def test_kept_columns_are_segments():
    table = SegmentTable((0, 100, 200), (100, 100, 100), (5, 1, 7), (4, 2, 9))
    values = torch.randn(13, generator=torch.Generator().manual_seed(1))
    inp = SegmentedInput.of_kept(values, table)
    check_all(inp, list(values.split([5, 1, 7])))


@pytest.mark.parametrize("position", [0, 70_000, 199_999])
def test_the_largest_number_may_come_late(position, threads):
    """It lies in another thread's share than the tiny numbers whose codes depend on it."""
    x = torch.full((200_000,), 2.0**-140)
    x[100:120_000] = 1.0
    x[position] = 2.0**126
    inp, rows = (
        SegmentedInput.of_kept(x, SegmentTable((0, 9), (9, 199_991), (9, 199_991), (0, 1))),
        [x[:9], x[9:]],
    )
    check_rounding(inp, rows, GRIDS[0], DRAW, False)
    check_rounding(inp, rows, GRIDS[0], None, False)


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_finite_are_seen(dtype, wrong, threads):
    lengths = [3, 20_000, 4100, 1]
    for place in (0, 2, 3, 20_002, 24_103):
        x = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(0), dtype=wide(dtype)).to(dtype)
        x[place] = wrong
        table = SegmentTable((0, 3, 20_003, 24_103), tuple(lengths), tuple(lengths), (0, 1, 2, 3))
        inp = SegmentedInput.of_kept(x, table)
        assert not all_finite(inp)
        assert not mean_magnitudes(inp).isfinite().all()
        for p in (1, 2, math.inf, 3):
            assert not norms(inp, p).isfinite().all()
        levels = levels_of(GRIDS[4], dtype)
        for scale in (None, torch.ones(4, dtype=inp.dtype)):
            for draw in (None, DRAW):
                codes, finite = round_segments(inp, levels, draw, scale=scale)
                assert not finite
                assert int(codes.to(torch.int64).abs().max()) <= levels.top
        assert not round_segments(inp, levels_of(GRIDS[0], dtype), DRAW)[1]
        assert not quantize_block_segments(inp, 7, 1024)[-1]
        assert not cast_segments(inp, torch.bfloat16)[-1]


def test_a_difference_that_overflows_is_seen():
    x, memory = torch.full((5,), 3e38), torch.zeros(5)
    table = SegmentTable((0,), (5,), (5,), (0,))
    both = SegmentedInput.of(
        Vectors.flat(x, table.start_array), table, Vectors.flat(memory, table.start_array)
    )
    assert all_finite(both)
    memory[3] = -3e38
    assert not all_finite(both)


def test_a_base_of_each_segment(threads):
    inp, rows = group([3, 5000, 20_000], torch.float32)
    levels = levels_of(GRIDS[0], torch.float32)
    base = torch.tensor([3, 0, 140])
    codes, _ = round_segments(inp, levels, DRAW, base=base)
    draws = [DRAW.at(number) for number in inp.numbers.tolist()]
    expected = [
        round_to_levels_reference(row, levels, draw.origin(), one, None)
        for row, draw, one in zip(rows, draws, base.split(1), strict=True)
    ]
    same(codes, torch.cat(expected))


def test_other_norms_are_those_of_each_segment():
    inp, rows = group([3, 5000], torch.float32)
    same(norms(inp, 3.0), torch.stack([norm_reference(row, 3.0) for row in rows]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_definitions_alone(dtype, monkeypatch):
    """What runs where nothing can be compiled."""
    from laconic.kernels import _dispatch

    inp, rows = group([3, 1, 5000, 64], dtype)
    with _dispatch.force_reference():
        check_all(inp, rows)
    empty = SegmentedInput.of_kept(torch.empty(0, dtype=dtype), SegmentTable((), (), (), ()))
    with _dispatch.force_reference():
        assert mean_magnitudes(empty).shape == sign_segments(empty).shape == norms(empty, 2).shape == (0,)


def test_all_sixteen_bit_numbers_are_read_and_written():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        x = bits.view(dtype)
        x = x[x.isfinite()]
        table = SegmentTable((0,), (x.numel(),), (x.numel(),), (0,))
        inp = SegmentedInput.of_kept(x, table)
        same(cast_segments(inp, torch.float32)[0], x.to(torch.float32))
        same(cast_segments(inp, dtype)[0], x)
        # Between neighbours, and a last place beside the middle.
        middles = torch.cat([(x[1:].double() + x[:-1].double()) / 2 * (1 + e * 2.0**-22) for e in (-1, 0, 1)])
        inp = SegmentedInput.of_kept(
            middles.float(), SegmentTable((0,), (middles.numel(),), (middles.numel(),), (0,))
        )
        most = torch.finfo(dtype).max
        same(cast_segments(inp, dtype)[0], middles.float().clamp(-most, most).to(dtype))


def test_what_does_not_fit_is_refused():
    table = SegmentTable((0, 3), (3, 2), (3, 2), (0, 1))
    x = Vectors.flat(torch.zeros(5), table.start_array)
    with pytest.raises(ValueError, match="beyond its array"):
        SegmentedInput.of(Vectors.flat(torch.zeros(4), table.start_array), table)
    with pytest.raises(ValueError, match="2 lengths, 2 numbers and 1 starts"):
        SegmentedInput.of(Vectors.flat(torch.zeros(5), table.start_array[:1]), table)
    with pytest.raises(TypeError, match="a memory of"):
        SegmentedInput.of(x, table, Vectors.flat(torch.zeros(5, dtype=torch.float64), table.start_array))
