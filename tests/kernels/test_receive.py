"""Decoding, adding and undoing the columns of whole groups: compiled loops equal plain ones bit for bit."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.formats.grids import (
    BlockLevels,
    ClippedPowers,
    ExponentialLevels,
    Signs,
    UniformLevels,
    signed_table,
)
from laconic.kernels import group_decode, receive, segments
from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels._dispatch import force_reference
from laconic.kernels.cpu.receive import STREAMED
from laconic.kernels.cpu.threads import using_threads
from laconic.kernels.group_decode import decode
from laconic.kernels.optimizer import apply_steps
from laconic.kernels.receive import Received, add_nodes, subtract_nodes, undo_nodes
from laconic.kernels.reference.group_decode import decode_reference
from laconic.kernels.segments import add_segments, copy_segments
from laconic.kernels.tables import SegmentTable, Vectors

CPU = torch.device("cpu")
GRIDS = [
    None,
    Signs(),
    UniformLevels(7),
    ExponentialLevels(2.0, 3),
    BlockLevels(4),
    ClippedPowers(3),
    UniformLevels(200),
]
REALS = [torch.float32, torch.float64]


@dataclass
class Case:
    """The columns of some nodes, and what they are to be added to."""

    table: SegmentTable
    nodes: list
    weights: list
    options: dict
    dtype: torch.dtype
    memory: torch.Tensor
    grid: object


def draw_case(seed, numels, nodes, dense, grid, dtype, kind, block, counted, factored):
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    kept = numels if dense else [int(rng.integers(0, numel + 1)) for numel in numels]
    starts = np.concatenate(([0], np.cumsum(numels)))
    table = SegmentTable(tuple(starts[:-1].tolist()), tuple(numels), tuple(kept), tuple(range(len(numels))))
    block = block if isinstance(grid, BlockLevels) else None
    return Case(
        table,
        [
            draw_node(rng, generator, table, dense, grid, dtype, kind, block, counted, factored)
            for _ in range(nodes)
        ],
        rng.standard_normal(nodes).tolist(),
        {"block": block, "levels": None if grid is None else signed_table(grid, dtype, CPU)},
        dtype,
        torch.randn(int(starts[-1]), generator=generator, dtype=dtype),
        grid,
    )


def draw_node(rng, generator, table, dense, grid, dtype, kind, block, counted, factored):
    count = rng.integers(0, table.kept_array + 1) if counted and not dense else None
    positions = scale = low = None
    if not dense:
        used = table.kept_array if count is None else count
        own = [
            np.concatenate((np.sort(rng.permutation(numel)[:n]), np.full(k - n, numel)))
            for numel, n, k in zip(table.numels, used, table.kept, strict=True)
        ]
        positions = torch.from_numpy(np.concatenate(own).astype(np.int64))
    if grid is None:
        spread = torch.exp2(torch.randint(-12, 12, (table.columns,), generator=generator))
        values = (torch.randn(table.columns, generator=generator) * spread).to(kind)
    else:
        top = len(grid.levels(dtype))
        values = torch.from_numpy(
            rng.integers(1, top + 1, table.columns) * rng.choice([-1, 1], table.columns)
        )
        if grid.symbols(dtype) % 2:
            values[torch.rand(len(values), generator=generator) < 0.3] = 0
        values = values.to(code_dtype(top))
        blocks = int(table.blocks(block)[-1])
        if not isinstance(grid, ExponentialLevels):
            scale = torch.randn(blocks, generator=generator, dtype=dtype).abs()
        if isinstance(grid, BlockLevels):
            low = torch.rand(blocks, generator=generator, dtype=dtype)
    factors = rng.standard_normal(len(table.numels)) if factored else None
    return Received(values, positions, scale, low, count, factors)


cases = st.builds(
    draw_case,
    seed=st.integers(0, 9999),
    numels=st.lists(st.one_of(st.integers(1, 9), st.integers(100, 900)), min_size=1, max_size=5),
    nodes=st.integers(1, 4),
    dense=st.booleans(),
    grid=st.sampled_from(GRIDS),
    dtype=st.sampled_from(REALS),
    kind=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    block=st.sampled_from([1, 3, 32]),
    counted=st.booleans(),
    factored=st.booleans(),
)


def bits(tensor):
    """A tensor's bit patterns."""
    return tensor.detach().contiguous().view(torch.uint8).tolist()


def scattered(flat, table):
    """The segments of a vector as tensors of their own, where they lie, and the same as vectors."""
    own = [part.clone() for part in flat.split(list(table.numels))]
    return own, Vectors.of(own)


def run(case, out_dtype, commit, remembered, record, own=True):
    """Everything that a call changes, as bytes."""
    tensors, memory = scattered(case.memory, case.table)
    outs, out = (
        (None, None)
        if out_dtype is None
        else scattered(torch.full_like(case.memory, 7).to(out_dtype), case.table)
    )
    columns = case.table.columns
    dense = case.nodes[0].positions is None
    before = (
        torch.zeros(columns if dense else columns * len(case.nodes), dtype=case.dtype) if record else None
    )
    add_nodes(
        memory if remembered else None, case.nodes, case.weights, case.table, out=out, before=before,
        commit=commit, **case.options,
    )  # fmt: skip
    after = [bits(tensor) for tensor in (*tensors, *(outs or ()), *(() if before is None else (before,)))]
    if record and commit and remembered:
        undo_nodes(memory, case.nodes, case.table, before)
        assert bits(torch.cat(tensors)) == bits(case.memory)
    return after


@given(
    cases,
    st.sampled_from([None, "same", torch.bfloat16, torch.float16]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_compiled_equals_plain_for_any_number_of_threads(case, out, commit, remembered, record):
    out = case.dtype if out == "same" else out
    if not remembered and (out is None or (case.dtype == torch.float64) != (out == torch.float64)):
        return
    arguments = (case, out, commit, remembered, record and remembered)
    with force_reference():
        expected = run(*arguments)
    assert run(*arguments) == expected
    worth, receive._WORTH = receive._WORTH, 1
    try:
        for threads in (2, 3):
            with using_threads(threads):
                assert run(*arguments) == expected
    finally:
        receive._WORTH = worth


def subtracted(case, kind, settings):
    """Parameters after the sum was subtracted, as bytes: in one pass, and after writing the sum."""
    tensors, parameters = scattered(case.memory.to(kind), case.table)
    subtract_nodes(parameters, case.nodes, case.weights, settings, case.table, **case.options)
    others, expected = scattered(case.memory.to(kind), case.table)
    sums = Vectors.of([torch.full_like(own, 7.0, dtype=case.dtype) for own in others])
    add_nodes(None, case.nodes, case.weights, case.table, out=sums, **case.options)
    apply_steps(expected, sums, settings, case.table.numel_array)
    return [bits(tensor) for tensor in tensors], [bits(tensor) for tensor in others]


@given(cases, st.booleans(), st.lists(st.sampled_from([1.0, 0.99]), min_size=5, max_size=5))
def test_sums_are_subtracted_from_parameters_without_being_written(case, narrow, decays):
    kind = torch.bfloat16 if narrow and case.dtype == torch.float32 else case.dtype
    settings = np.stack([decays, np.linspace(0.1, 2.0, 5)], axis=1)[: len(case.table.numels)]
    with force_reference():
        found, expected = subtracted(case, kind, settings)
    assert found == expected
    worth, receive._WORTH = receive._WORTH, 1
    try:
        for threads in (1, 2, 3):
            with using_threads(threads):
                assert subtracted(case, kind, settings) == (expected, expected)
    finally:
        receive._WORTH = worth


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_parameters_longer_than_a_tile(decay):
    case = draw_case(5, [9000, 5, 20_000], 3, False, None, torch.float32, torch.float32, None, True, True)
    settings = np.array([[decay, 0.3]] * 3)
    with force_reference():
        expected, _ = subtracted(case, torch.float32, settings)
    assert subtracted(case, torch.float32, settings) == (expected, expected)


@pytest.mark.parametrize("place", [-1, 3, 1 << 40])
def test_parameters_outside_a_segment_stay(place):
    table, parameters = SegmentTable((0,), (3,), (2,), (0,)), torch.arange(9.0)
    node = Received(torch.ones(2), torch.tensor([1, place]))
    inside = Vectors.flat(parameters[3:6], table.start_array)
    with pytest.raises(IndexError, match="outside its segment"):
        subtract_nodes(inside, [node], [1.0], np.array([[1.0, 1.0]]), table)
    assert parameters[:3].tolist() == [0.0, 1.0, 2.0]
    assert parameters[6:].tolist() == [6.0, 7.0, 8.0]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("grid", [None, BlockLevels(4), Signs()])
def test_segments_longer_than_a_tile(dense, grid):
    case = draw_case(3, [40_000, 5, 20_000], 3, dense, grid, torch.float32, torch.bfloat16, 1000, False, True)
    for out in (None, torch.float32, torch.bfloat16):
        with force_reference():
            expected = run(case, out, True, True, True)
        assert run(case, out, True, True, True) == expected
        with using_threads(2):
            assert run(case, out, True, True, True) == expected


def test_additions_go_by_node():
    """By hand: (((1 + 2^-24) + 2^-24) + 1) in float32 loses what another order keeps."""
    table = SegmentTable((0,), (2,), (1,), (0,))
    memory = torch.tensor([5.0, 1.0])
    one = torch.tensor([1])
    nodes = [Received(torch.tensor([x]), one) for x in (2.0**-23, 2.0**-23, 2.0)]
    before = torch.zeros(3)
    vectors = Vectors.flat(memory, table.start_array)
    add_nodes(vectors, nodes, [0.5, 0.5, 0.5], table, before=before)
    assert memory.tolist() == [5.0, 2.0]
    assert before.tolist() == [1.0, 1.0, 1.0]
    add_nodes(vectors, nodes[::-1], [0.5] * 3, table)
    assert memory.tolist() == [5.0, 3.0]


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("dtype", REALS)
def test_long_sums_are_written_past_the_caches(dtype, commit):
    """Segments that start and end anywhere, with other numbers beside them."""
    numels, starts = (STREAMED, 3, 70_001), (5, STREAMED + 6, STREAMED + 11)
    table = SegmentTable(starts, numels, numels, (0, 1, 2))
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(starts[-1] + numels[-1] + 9, generator=generator, dtype=dtype)
    positions = torch.cat([torch.arange(n) for n in numels])
    values = torch.randn(len(positions), generator=generator)
    node = Received(values, positions)
    found = []
    for context in (lambda: using_threads(1), force_reference):
        for remembered in (True, False):
            own, out = memory.clone(), torch.full_like(memory, 7.0)
            held, written = (Vectors.flat(each, table.start_array) for each in (own, out))
            with context():
                add_nodes(held if remembered else None, [node], [0.5], table, out=written, commit=commit)
            found.append((own, out))
            assert out[:5].tolist() == [7.0] * 5
            assert out[-9:].tolist() == [7.0] * 9
    for (own, out), (own_expected, out_expected) in zip(found[:2], found[2:], strict=True):
        assert torch.equal(own, own_expected)
        assert torch.equal(out, out_expected)


def wrong_positions(numel, k):
    """Positions of which one leaves the segment, or that are out of order."""
    good = torch.arange(k)
    for column, wrong in ((0, -1), (k - 1, numel), (k - 1, 1 << 40), (0, -(1 << 40)), (3, 0), (3, 2)):
        changed = good.clone()
        changed[column] = wrong
        yield changed


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_positions_outside_or_out_of_order_are_refused(remembered, threads, monkeypatch):
    monkeypatch.setattr(receive, "_WORTH", 1)
    table = SegmentTable((10, 40), (20, 20), (10, 10), (0, 1))
    for positions in wrong_positions(20, 10):
        room = torch.zeros(70)
        vectors = Vectors.flat(room, table.start_array)
        node = Received(torch.ones(20), torch.cat((torch.arange(10), positions)))
        for context in (using_threads(threads), force_reference()):
            with context, pytest.raises(IndexError, match="outside"):
                add_nodes(vectors if remembered else None, [node], [1.0], table, out=vectors)
        assert not room[:10].any()
        assert not room[30:40].any()
        assert not room[60:].any()


@pytest.mark.parametrize("dense", [True, False])
def test_codes_without_a_level_are_refused(dense):
    table = SegmentTable((0,), (4,), (4,), (0,))
    vectors = Vectors.flat(torch.zeros(4), table.start_array)
    levels = torch.tensor([-1.0, 0.0, 1.0])
    for code in (2, -2, 127, -128):
        node = Received(torch.tensor([0, 1, code, 0], dtype=torch.int8), None if dense else torch.arange(4))
        for context in (using_threads, lambda _: force_reference()):
            with context(1), pytest.raises(IndexError, match="level"):
                add_nodes(vectors, [node], [1.0], table, levels=levels)
            with context(1), pytest.raises(IndexError, match="level"):
                decode(node.values, table, levels, None, None, None, None, torch.float32)


def test_what_does_not_fit_is_refused():
    table = SegmentTable((0, 5), (5, 5), (2, 1), (0, 1))
    vectors = Vectors.flat(torch.zeros(10), table.start_array)
    good = Received(torch.ones(3), torch.tensor([0, 1, 0]))
    wrong = [
        good._replace(values=torch.ones(4)),
        good._replace(positions=torch.tensor([0, 1])),
        good._replace(positions=torch.tensor([0, 1, 0], dtype=torch.int32)),
        good._replace(positions=None),
        good._replace(scale=torch.ones(3)),
        good._replace(counts=np.array([3, 0])),
        good._replace(values=torch.ones(3, dtype=torch.float64)),
    ]
    for node in wrong:
        with pytest.raises(ValueError, match="node 1"):
            add_nodes(vectors, [good, node], [1.0, 1.0], table)
    with pytest.raises(ValueError, match="weights"):
        add_nodes(vectors, [good], [], table)
    with pytest.raises(ValueError, match="before"):
        add_nodes(vectors, [good], [1.0], table, before=torch.zeros(2))
    with pytest.raises(ValueError, match="memory"):
        add_nodes(Vectors.flat(torch.zeros(10).bfloat16(), table.start_array), [good], [1.0], table)


def test_a_silent_group_leaves_the_memory_and_writes_it():
    table = SegmentTable((0, 3), (3, 2), (0, 0), (0, 1))
    memory, out = torch.arange(5.0), torch.zeros(5)
    both = [Vectors.flat(tensor, table.start_array) for tensor in (memory, out)]
    for context in (using_threads(1), force_reference()):
        out.zero_()
        with context:
            add_nodes(both[0], [Received(torch.empty(0))] * 2, [0.5, 0.5], table, out=both[1])
        assert out.tolist() == memory.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@given(cases)
def test_decoded_numbers_equal_the_plain_ones(case):
    worth, group_decode._WORTH = group_decode._WORTH, 1
    try:
        for node in case.nodes:
            arguments = (
                node.values, case.table, case.options["levels"], node.scale, node.low, case.options["block"],
                node.factors, case.dtype,
            )  # fmt: skip
            expected = bits(decode_reference(*arguments))
            for threads in (1, 2):
                with using_threads(threads):
                    assert bits(decode(*arguments)) == expected
    finally:
        group_decode._WORTH = worth


def test_batches_decode_like_their_rows():
    case = draw_case(5, [40, 7], 6, False, BlockLevels(4), torch.float32, torch.float32, 3, False, True)
    rows = [(node.values, node.scale, node.low) for node in case.nodes]
    values, scale, low = (torch.stack(fields).unflatten(0, (2, 3)) for fields in zip(*rows, strict=True))
    beside = (case.options["block"], case.nodes[0].factors, torch.float32)
    batch = decode(values, case.table, case.options["levels"], scale, low, *beside)
    for i, row in enumerate(rows):
        one = decode(row[0], case.table, case.options["levels"], *row[1:], *beside)
        assert torch.equal(batch[i // 3, i % 3], one)


def test_a_low_magnitude_is_added_to_the_level_of_a_code():
    """By hand: level 2 of 0, 1/3, 2/3, 1 is 1/3, and 6 times it rounds to 2."""
    grid = BlockLevels(3)
    codes = torch.tensor([1, -2, 4], dtype=torch.int8)
    table = SegmentTable((0,), (3,), (3,), (0,))
    scale, low = torch.tensor([6.0]), torch.tensor([0.5])
    found = decode(
        codes, table, signed_table(grid, torch.float32, CPU), scale, low, None, None, torch.float32
    )
    assert found.tolist() == [0.5, -2.5, 6.5]


@given(
    st.integers(0, 999),
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.sampled_from(REALS),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_sums_and_copies_of_segments(seed, numels, dtype, left, right):
    generator = torch.Generator().manual_seed(seed)
    numel_array = np.array(numels)
    draws = [[torch.randn(n, generator=generator).to(kind) for n in numels] for kind in (left, right)]
    x, y = map(Vectors.of, draws)
    worth, segments._WORTH = segments._WORTH, 1
    try:
        for threads in (1, 2):
            with using_threads(threads):
                copies = [torch.zeros(n, dtype=right) for n in numels]
                copy_segments(Vectors.of(copies), x, numel_array)
                assert [bits(tensor) for tensor in copies] == [bits(t.to(right)) for t in draws[0]]
                sums = [torch.zeros(n, dtype=dtype) for n in numels]
                if torch.float64 in (left, right) and dtype == torch.float32:
                    with pytest.raises(ValueError, match="cannot hold"):
                        add_segments(Vectors.of(sums), x, y, numel_array)
                    continue
                add_segments(Vectors.of(sums), x, y, numel_array)
                expected = [a.to(dtype) + b.to(dtype) for a, b in zip(*draws, strict=True)]
                assert [bits(tensor) for tensor in sums] == [bits(tensor) for tensor in expected]
    finally:
        segments._WORTH = worth


def test_a_segment_shares_its_memory():
    vector = torch.zeros(5, dtype=torch.bfloat16)
    Vectors.flat(vector, np.array([0, 2])).segment(1, 3).fill_(1.0)
    assert vector.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
