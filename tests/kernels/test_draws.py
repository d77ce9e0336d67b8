"""Random positions in all segments of a group: compiled loops equal the definitions, segment by segment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels import (
    SHARED,
    Purpose,
    SegmentedInput,
    Stream,
    chosen_segments,
    gather_segments,
    kernel_counts,
    permuted_segments,
)
from laconic.kernels.reference.draws import (
    chosen_segments_reference,
    gather_segments_reference,
    permuted_segments_reference,
)
from laconic.kernels.tables import SegmentTable, Vectors

words = st.integers(0, 2**32 - 1)


@st.composite
def tables(draw):
    numels = draw(st.lists(st.integers(1, 300), min_size=1, max_size=6))
    kept = [draw(st.integers(0, numel)) for numel in numels]
    numbers = draw(st.lists(words, min_size=len(numels), max_size=len(numels)))
    starts = [sum(numels[:s]) for s in range(len(numels))]
    return SegmentTable(tuple(starts), tuple(numels), tuple(kept), tuple(numbers))


@st.composite
def streams(draw):
    seed = draw(st.integers(-(2**63), 2**64 - 1))
    round_, node = draw(words), draw(words)
    if draw(st.booleans()):
        return Stream(seed, round_, node)
    return Stream(torch.tensor([[seed % 2**62], [5]]), round_, torch.tensor([node, 3, SHARED]))


@given(draw=streams(), table=tables())
@settings(max_examples=60, deadline=None)
def test_permutations_of_segments_are_those_of_each(draw, table):
    found = permuted_segments(draw, table)
    assert found.dtype == torch.int64
    assert torch.equal(found, permuted_segments_reference(draw.origin(), table))


@given(draw=streams(), table=tables(), p=st.floats(0.001, 1.0))
@settings(max_examples=60, deadline=None)
def test_choices_in_segments_are_those_of_each(draw, table, p):
    found, expected = chosen_segments(draw, p, table), chosen_segments_reference(draw.origin(), p, table)
    assert all(map(torch.equal, found, expected))


def test_each_coordinate_has_its_own_probability():
    table, draw = SegmentTable((0, 3000), (3000, 3000), (3000, 3000), (4, 1)), Stream(seed=9, node=2)
    p = tuple((0.1 + 0.8 * torch.arange(3000) / 3000).tolist())
    found, expected = chosen_segments(draw, p, table), chosen_segments_reference(draw.origin(), p, table)
    assert all(map(torch.equal, found, expected))
    assert found[1].tolist() == pytest.approx([1500, 1500], abs=150)


@given(draw=streams(), numbers=st.lists(words, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_coins_of_segments_are_those_of_each(draw, numbers):
    expected = [draw.at(number).coin(Purpose.SELECTION) for number in numbers]
    assert torch.equal(draw.coins(torch.tensor(numbers), Purpose.SELECTION), torch.stack(expected, dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tracked", [False, True])
def test_gathering_reads_each_segment(dtype, tracked):
    generator = torch.Generator().manual_seed(0)
    table = SegmentTable((0, 70), (70, 5), (9, 2), (0, 1))
    x = torch.randn(75, generator=generator).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    memory = torch.randn(75, generator=generator).to(wide) if tracked else None
    held = None if memory is None else Vectors.flat(memory, table.start_array)
    inp = SegmentedInput.of(Vectors.flat(x, table.start_array), table, held)
    positions = torch.tensor([0, 3, 4, 33, 69, 70, 70, 70, 70, 4, 5])
    found = gather_segments(inp, positions, table.bounds)
    assert found.dtype == (wide if tracked else dtype)
    expected = gather_segments_reference(inp.rows(), positions, table.bounds)
    assert torch.equal(found, expected.to(found.dtype))
    assert found[[5, 10]].tolist() == [0.0, 0.0]


def test_the_compiled_loops_are_those_that_run():
    """Else the tests above hold the definitions against themselves."""
    before = kernel_counts()
    permuted_segments(Stream(seed=1), SegmentTable((0,), (5,), (2,), (0,)))
    ran = {key for key, count in kernel_counts().items() if count > before.get(key, 0)}
    assert ran == {"cpu:draws"}
