"""Top-k kernels against a plain sort, bit for bit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same import same

from laconic.kernels import gpu
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.reference.selection import top_k_positions_reference, top_k_segments_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.0**-149, -(2.0**-149), 2.0**-24, 5.0]


def check(x, memory, cuts, **sizes):
    positions, values = gpu.top_k_segments(x, memory, cuts, **sizes)
    expected, numbers = top_k_segments_reference(x, memory, cuts)
    assert positions.equal(expected)
    assert same(values, numbers)


@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_and_short_segments(dtype, tracks):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(700, generator=generator, dtype=torch.float64).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    memory = torch.randn(700, generator=generator, dtype=torch.float64).to(wide) if tracks else None
    cuts = SelectionTable.of([0, 7, 100, 401], [7, 64, 300, 299], [3, 1, 20, 299])
    check(x, memory, cuts, tile=64, samples=128, short=16)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 129])
def test_at_the_borders_of_tiles_and_samples(length):
    x = torch.randn(length + 3, generator=torch.Generator().manual_seed(length))
    for count in sorted({1, (length + 1) // 2}):
        check(x, None, SelectionTable.of([3], [length], [count]), tile=64, samples=128, short=0)


@pytest.mark.parametrize("value", [-0.0, 1.5, math.nan])
def test_ties_of_all_mislead_the_sample_and_go_to_the_lowest(value):
    x = torch.full((1400,), value)
    check(x, None, SelectionTable.of([0], [1400], [10]), tile=128, samples=64, short=0)


def test_a_sample_that_sees_nothing():
    x = torch.zeros(2000)
    x[torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:40]] = torch.randn(40)
    check(x, x.flip(0).contiguous(), SelectionTable.of([0], [2000], [60]), tile=256, samples=16, short=0)


def test_candidates_that_do_not_fit_are_not_written_past_their_room():
    # The sample's places are fixed, so small numbers there make the bound too low for the room.
    x = torch.linspace(1, 2, 6000)
    x[:3000] = 3.0
    check(x, None, SelectionTable.of([0, 3000], [3000, 3000], [5, 5]), tile=512, samples=32, short=0)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=3)
@given(st.data())
def test_special_numbers_anywhere(dtype, data):
    length = data.draw(st.integers(2, 150))
    pool = torch.tensor(data.draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=5)))
    seed = data.draw(st.integers(0, 2**30))
    choice = torch.randint(len(pool), (length,), generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(1, length - 1))
    counts = [data.draw(st.integers(1, n)) for n in (cut, length - cut)]
    cuts = SelectionTable.of([0, cut], [cut, length - cut], counts)
    check(pool[choice].to(dtype), None, cuts, tile=64, samples=64, short=data.draw(st.sampled_from([0, 32])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ruin", ["some", "half", "all"])
def test_what_is_not_finite_is_kept_first_and_written_within_bounds(ruin, dtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(700, generator=generator, dtype=torch.float64)
    memory = torch.randn(700, generator=generator, dtype=torch.float64)
    if ruin == "some":
        x[[0, 99, 400, 699]] = torch.tensor([math.nan, math.inf, -math.inf, math.nan], dtype=torch.float64)
    else:
        x[:: 2 if ruin == "half" else 1] = math.nan
        x[::6] = math.inf
    x, memory = x.to(dtype), memory.to(torch.float64 if dtype == torch.float64 else torch.float32)
    starts, lengths = [0, 7, 100, 401], [7, 64, 300, 299]
    for kept in ([3, 1, 20, 299], [7, 64, 299, 1]):
        cuts = SelectionTable.of(starts, lengths, kept)
        for held in (None, memory):
            positions, values = gpu.top_k_segments(x, held, cuts, tile=64, samples=128, short=16)
            all_numbers = x if held is None else x.to(held.dtype) - held
            # Which of several NaNs are kept depends on their bits, which conversions do not promise.
            for at, found, start, length in zip(
                positions.split(kept), values.split(kept), starts, lengths, strict=True
            ):
                numbers = all_numbers[start : start + length]
                assert at[0] >= 0
                assert at[-1] < length
                assert bool((at.diff() > 0).all())
                assert torch.equal(found.nan_to_num(nan=0.5), numbers[at].nan_to_num(nan=0.5))
                left = numbers.index_fill(0, at, 0.0)
                assert len(at) < int(numbers.isnan().sum()) or not left.isnan().any()
                assert found.isfinite().all() == numbers.isfinite().all()


@pytest.mark.parametrize("block", [1, 16, 60, 200])
def test_blocks(block):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(block)).round(decimals=1)
    rest = 990 % block
    cuts = SelectionTable.of([10], [990], [max(1, block // 5)], block=block, last=min(rest, 2))
    check(x, None, cuts, tile=64, samples=64, short=64)
    check(x, x.roll(1), cuts, tile=64, samples=64)


def test_rows():
    x = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(2))
    assert gpu.top_k_positions(x, 7).equal(top_k_positions_reference(x, 7))
    assert gpu.top_k_positions(x.transpose(0, 1), 50).equal(top_k_positions_reference(x.transpose(0, 1), 50))


def test_the_same_tables_serve_again():
    cuts = SelectionTable.of([0], [300], [4])
    for seed in range(2):
        x = torch.randn(300, generator=torch.Generator().manual_seed(seed))
        check(x, None, cuts, tile=64, samples=64, short=0)
    assert len(cuts.plans) == 1


def test_what_does_not_fit_is_refused():
    x, cuts = torch.zeros(10), SelectionTable.of([0], [10], [2])
    with pytest.raises(ValueError, match="contiguous vector"):
        gpu.top_k_segments(x.expand(2, 10), None, cuts)
    with pytest.raises(ValueError, match="memory must be contiguous"):
        gpu.top_k_segments(x, torch.zeros(9), cuts)
    with pytest.raises(TypeError, match="does not fit"):
        gpu.top_k_segments(x.double(), x, cuts)
    with pytest.raises(TypeError, match="float32 or float64"):
        gpu.top_k_segments(x.half(), x.half(), cuts)
    with pytest.raises(ValueError, match="end at 10"):
        gpu.top_k_segments(x[:9], None, cuts)
