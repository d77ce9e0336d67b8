"""Bit packing of a group's positions and codes: compiled loops against plain ones, and hostile bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.formats.sizes import symbol_bits
from laconic.kernels import group_codes
from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels._dispatch import force_reference
from laconic.kernels.cpu.threads import using_threads
from laconic.kernels.group_codes import code_bytes, compact, get_codes, put_codes, spread
from laconic.kernels.group_positions import get_adaptive, get_positions, put_adaptive, put_positions
from laconic.kernels.position_plan import BITMAP, CELLS, ELIAS_FANO, IMPLIED, position_plan
from laconic.kernels.reference.group_codes import get_codes_reference, put_codes_reference
from laconic.kernels.reference.group_positions import get_positions_reference, put_positions_reference


def low_bits(numel, used):
    """Elias-Fano's number of low bits: the smallest best."""
    return min(range(numel.bit_length()), key=lambda low: used * low + ((numel - 1) >> low))


def draw_segment(rng, numel, share, cell):
    """Ascending positions in [0, numel): in cells, or a share of all."""
    if cell:
        length, count = cell
        starts = range(0, numel, length)
        cells = [(start, min(length, numel - start)) for start in starts]
        return np.concatenate(
            [start + np.sort(rng.permutation(size)[: min(count, size)]) for start, size in cells]
        )
    return np.sort(rng.permutation(numel)[: round(share * numel)])


def draw_group(seed, segments, spare):
    """A plan and columns; a segment is (numel, share, cell or None)."""
    rng = np.random.default_rng(seed)
    drawn = [draw_segment(rng, *segment) for segment in segments]
    kept = [len(own) + int(rng.integers(0, 4)) * spare for own in drawn]
    cells = [cell or (0, 0) for *_, cell in segments]
    plan = position_plan(
        [numel for numel, *_ in segments], [len(own) for own in drawn], *zip(*cells, strict=True), kept
    )
    padded = [
        np.concatenate((own, np.full(n - len(own), numel)))
        for own, n, (numel, *_) in zip(drawn, kept, segments, strict=True)
    ]
    return plan, np.concatenate(padded).astype(np.int64)


cells = st.tuples(st.integers(1, 40), st.integers(1, 8)).map(lambda pair: (pair[0], min(pair)))
segments = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 5), st.integers(1, 600)),
        st.sampled_from([0.0, 0.005, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0]),
        st.one_of(st.none(), cells),
    ),
    min_size=1,
    max_size=6,
)
groups = st.builds(draw_group, st.integers(0, 999), segments, st.booleans())


def packed(positions, plan):
    out = np.full(plan.nbytes, 0xAA, np.uint8)
    put_positions(positions, plan, out)
    return out


@given(segments)
def test_each_segment_takes_the_form_with_the_fewest_bits(segments):
    plan, _ = draw_group(0, segments, False)
    for s, (numel, _, cell) in enumerate(segments):
        used = int(plan.used[s])
        low = low_bits(numel, used)
        high = used + ((numel - 1) >> low)
        forms = [(used * low + high, ELIAS_FANO, used * low, high), (numel, BITMAP, 0, numel)]
        if cell:
            forms.insert(0, (used * (cell[0] - 1).bit_length(), CELLS, used * (cell[0] - 1).bit_length(), 0))
        if used in (0, numel):
            forms.insert(0, (0, IMPLIED, 0, 0))
        _, form, low_total, high_total = min(forms, key=lambda row: row[0])
        assert plan.forms[s] == form
        assert plan.lows[s + 1] - plan.lows[s] == low_total
        assert plan.highs[s + 1] - plan.highs[s] == high_total
    assert plan.nbytes == (plan.lows[-1] + 7) // 8 + (plan.highs[-1] + 7) // 8


@given(groups)
def test_positions_equal_the_plain_ones(group):
    plan, positions = group
    data = packed(positions, plan)
    assert np.array_equal(data, put_positions_reference(torch.from_numpy(positions), plan).numpy())
    assert np.array_equal(get_positions(data, plan), positions)
    assert np.array_equal(get_positions_reference(torch.from_numpy(data), plan).numpy(), positions)
    with force_reference():
        assert np.array_equal(packed(torch.from_numpy(positions), plan), data)
        assert np.array_equal(get_positions(data, plan), positions)


def test_many_segments_take_no_more_bits_than_their_number():
    """Of the same density, 150 segments against one."""
    one = position_plan([150 * 6000], [150 * 60])
    many = position_plan([6000] * 150, [60] * 150)
    assert many.nbytes <= one.nbytes + 150 // 8


@given(groups, st.data())
def test_writing_refuses_what_does_not_ascend_in_its_segment(group, data):
    plan, positions = group
    if not plan.total_used:
        return
    s = data.draw(st.sampled_from(np.flatnonzero(plan.used).tolist()))
    numel = int(plan.numels[s])
    column = int(plan.bounds[s]) + data.draw(st.integers(0, int(plan.used[s]) - 1))
    wrong = st.sampled_from([-1, -(1 << 62), numel, numel + 64, (1 << 62) - 1])
    changed = positions.copy()
    changed[column] = data.draw(wrong)
    if data.draw(st.booleans()) and column > plan.bounds[s]:
        changed[column] = changed[column - 1]
    out = np.zeros(plan.nbytes + 32, np.uint8)
    with pytest.raises(ValueError, match="the positions do not"):
        put_positions(changed, plan, out[16 : 16 + plan.nbytes])
    assert not out[:16].any()
    assert not out[16 + plan.nbytes :].any()
    with pytest.raises(ValueError, match="the positions do not"):
        put_positions_reference(torch.from_numpy(changed), plan)


def outcome(read):
    """What was read, or that it was refused."""
    try:
        return np.asarray(read()).tolist()
    except ValueError:
        return "refused"


def mangled(data, rng):
    """Bytes with a few of their bits turned, some of them moved, or none kept."""
    data = data.copy()
    if not data.size:
        return data
    if rng.random() < 0.2:
        return rng.integers(0, 256, data.size).astype(np.uint8)
    for _ in range(rng.integers(1, 3)):
        data[rng.integers(data.size)] ^= 1 << rng.integers(8)
    if rng.random() < 0.3:
        i, j = rng.integers(data.size, size=2)
        data[i], data[j] = data[j], data[i]
    return data


@given(groups, st.integers(0, 999))
def test_hostile_bytes_are_refused_as_reference(group, seed):
    plan, positions = group
    data, rng = packed(positions, plan), np.random.default_rng(seed)
    for _ in range(20):
        changed = mangled(data, rng)
        compiled = outcome(lambda changed=changed: get_positions(changed, plan))
        assert compiled == outcome(
            lambda changed=changed: get_positions_reference(torch.from_numpy(changed), plan)
        )
        if compiled != "refused":
            assert np.array_equal(packed(np.array(compiled, np.int64), plan), changed)


def test_more_positions_than_places_are_refused():
    for arguments in (([3], [4]), ([3], [2], None, None, [1]), ([3], [-1]), ([9], [1], [3], [0])):
        with pytest.raises(ValueError, match="positions"):
            position_plan(*arguments)
    plan = position_plan([100], [3])
    with pytest.raises(ValueError, match="bytes"):
        put_positions(np.arange(3), plan, np.zeros(plan.nbytes + 1, np.uint8))
    with pytest.raises(ValueError, match="bytes"):
        get_positions(np.zeros(plan.nbytes - 1, np.uint8), plan)


@given(groups)
def test_adaptive_positions_come_back(group):
    plan, positions = group
    data = put_adaptive(positions, plan)
    assert data.size <= 1 + plan.nbytes
    read, size = get_adaptive(np.append(data, np.uint8(77)), plan)
    assert size == data.size
    assert np.array_equal(read, positions)


def test_clustered_positions_are_smaller_when_they_adapt():
    positions = np.concatenate((np.arange(300), np.arange(300) * 60, np.arange(10)))
    plan = position_plan([20_000, 20_000, 50], [300, 300, 10])
    data = put_adaptive(positions, plan)
    assert data.size < 0.8 * plan.nbytes
    assert np.array_equal(get_adaptive(data, plan)[0], positions)


@given(groups, st.integers(0, 999))
def test_hostile_adaptive_bytes_give_positions_of_the_segments_or_none(group, seed):
    plan, positions = group
    data, rng = put_adaptive(positions, plan), np.random.default_rng(seed)
    for _ in range(20):
        changed = mangled(data, rng)[: rng.integers(1, data.size + 1)]
        try:
            read, size = get_adaptive(changed, plan)
        except ValueError:
            continue
        assert size <= changed.size
        packed(read, plan)


def draw_codes(rng, symbols, bases, kept):
    base = np.repeat(bases, kept)
    magnitude = rng.integers(1 - symbols % 2, symbols // 2 + 1, base.size)
    magnitude = np.where(magnitude > 0, magnitude + base, 1 - symbols % 2)
    return magnitude * rng.choice([-1, 1], base.size)


symbol_counts = st.one_of(
    st.sampled_from([2, 3, 4, 5, 6, 7, 15, 16, 17, 31, 63, 127, 255, 256, 511, 1023, (1 << 18) + 1]),
    st.integers(1, 9).map(lambda bits: (1 << bits) - 1 if bits > 1 else 2),
)
code_groups = st.builds(
    lambda seed, symbols, kept, counted, based, room: (
        np.random.default_rng(seed),
        symbols,
        np.array(kept),
        counted,
        based,
        room,
    ),
    st.integers(0, 999),
    symbol_counts,
    st.lists(st.one_of(st.integers(0, 20), st.integers(3000, 9000)), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 100, 40_000]),
)


def code_case(case):
    rng, symbols, kept, counted, based, room = case
    bases = rng.integers(0, 30, len(kept)) if based and symbols % 2 else np.zeros(len(kept), np.int64)
    used = rng.integers(0, kept + 1) if counted else None
    bounds = np.concatenate(([0], np.cumsum(kept)))
    top = symbols // 2 + (30 if symbols % 2 else 0) + room
    codes = torch.from_numpy(draw_codes(rng, symbols, bases, kept)).to(code_dtype(top))
    shared, width = symbol_bits(symbols)
    counts = kept if used is None else used
    if used is not None:
        codes = spread(compact(codes, bounds, used), bounds, used, 1 - symbols % 2)
    return codes, (bases, bounds, counts), used, (symbols, shared, width), top


@given(code_groups)
def test_codes_equal_the_plain_ones(case):
    codes, (bases, bounds, counts), used, grid, top = code_case(case)
    data = np.full(code_bytes(int(counts.sum()), *grid[1:]), 0xAA, np.uint8)
    put_codes(codes, bases, bounds, used, *grid, data)
    assert np.array_equal(data, put_codes_reference(codes, bases, bounds, counts, *grid).numpy())
    read = get_codes(data, bases, bounds, used, *grid, top)
    assert read.dtype == codes.dtype
    assert torch.equal(read, codes)
    assert torch.equal(get_codes_reference(torch.from_numpy(data), bases, bounds, counts, *grid, top), codes)


@given(code_groups, st.integers(0, 999))
def test_hostile_codes_are_refused_as_reference(case, seed):
    codes, (bases, bounds, counts), used, grid, top = code_case(case)
    data = put_codes_reference(codes, bases, bounds, counts, *grid).numpy()
    rng = np.random.default_rng(seed)
    for _ in range(3):
        changed = mangled(data, rng)
        plain = outcome(
            lambda changed=changed: get_codes_reference(
                torch.from_numpy(changed), bases, bounds, counts, *grid, top
            )
        )
        assert outcome(lambda changed=changed: get_codes(changed, bases, bounds, used, *grid, top)) == plain


@given(code_groups, st.sampled_from([0, 1, -1, 1 << 30, -(1 << 31), (1 << 31) - 1]), st.data())
def test_writing_refuses_codes_outside_the_grid(case, wrong, data):
    codes, (bases, bounds, counts), used, grid, _ = code_case(case)
    if not counts.any():
        return
    s = data.draw(st.sampled_from(np.flatnonzero(counts).tolist()))
    codes = codes.to(torch.int32)
    codes[int(bounds[s])] = wrong
    out = np.zeros(code_bytes(int(counts.sum()), *grid[1:]), np.uint8)
    try:
        plain = put_codes_reference(codes, bases, bounds, counts, *grid)
    except ValueError:
        with pytest.raises(ValueError, match="none of"):
            put_codes(codes, bases, bounds, used, *grid, out)
    else:
        put_codes(codes, bases, bounds, used, *grid, out)
        assert np.array_equal(out, plain.numpy())


@pytest.mark.parametrize("symbols", [2, 3, 6, 15, 255, 511])
def test_threads_do_not_change_codes(symbols, monkeypatch):
    monkeypatch.setattr(group_codes, "_WORTH", 1)
    rng = np.random.default_rng(symbols)
    kept = np.array([9001, 0, 3, 7000])
    bounds, used = np.concatenate(([0], np.cumsum(kept))), np.array([8000, 0, 3, 6999])
    bases, top = np.zeros(4, np.int64), symbols // 2
    codes = torch.from_numpy(draw_codes(rng, symbols, bases, kept)).to(code_dtype(top))
    grid = (symbols, *symbol_bits(symbols))
    found = []
    for threads in (1, 2, 3):
        with using_threads(threads):
            data = np.zeros(code_bytes(int(used.sum()), *grid[1:]), np.uint8)
            put_codes(codes, bases, bounds, used, *grid, data)
            found.append((data.tolist(), get_codes(data, bases, bounds, used, *grid, top).tolist()))
    assert found[0] == found[1] == found[2]
    assert np.array_equal(found[0][0], put_codes_reference(codes, bases, bounds, used, *grid).numpy())


def test_bases_that_lead_beyond_the_levels_are_refused():
    bounds = np.array([0, 4])
    for base in (-1, 4):
        with pytest.raises(ValueError, match="level"):
            get_codes(np.zeros(2, np.uint8), np.array([base]), bounds, None, 15, 1, 4, 10)
    assert get_codes(np.zeros(2, np.uint8), np.array([3]), bounds, None, 15, 1, 4, 10).tolist() == [0] * 4


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.data())
def test_compacted_columns_come_back(kept, data):
    bounds = np.concatenate(([0], np.cumsum(kept)))
    used = np.array([data.draw(st.integers(0, n)) for n in kept])
    columns = torch.arange(1.0, float(bounds[-1]) + 1)
    compacted = compact(columns, bounds, used)
    starts = zip(bounds[:-1], used, strict=True)
    assert compacted.tolist() == [x + 1.0 for start, n in starts for x in range(start, start + n)]
    back = spread(compacted, bounds, used, 0.0)
    assert torch.equal(compact(back, bounds, used), compacted)
    assert back.count_nonzero() == used.sum()
