"""Top-k of all segments of a flat vector, bit for bit against the plain form."""

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moving import move_top_k_

from laconic.kernels import SelectionTable, _dispatch, set_threads, top_k_segments
from laconic.kernels.cpu import selection, topk_bounds, topk_shared
from laconic.kernels.reference.selection import top_k_segments_reference
from laconic.kernels.tables import accumulation_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(selection, "_WORTH", 1 << 10)
    monkeypatch.setattr(selection, "_CUT", 1 << 11)
    set_threads(request.param)
    yield request.param
    set_threads(None)


def same(found, expected):
    """Positions and bits; one NaN is like another."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.is_floating_point():
            bits = BITS[a.itemsize]
            assert torch.equal(a.isnan(), b.isnan())
            assert torch.equal(a.nan_to_num(3.0).view(bits), b.nan_to_num(3.0).view(bits))
        else:
            assert torch.equal(a, b)


def check(x, memory, cuts, salt=0):
    before = x.clone(), None if memory is None else memory.clone()
    found = top_k_segments(x, memory, cuts, salt=salt)
    same(found, top_k_segments_reference(x, memory, cuts))
    same((x,), (before[0],))
    if memory is not None:
        same((memory,), (before[1],))
        check_moved(memory.clone(), cuts, x.float() if x.dtype == torch.float16 else x, salt)
    if accumulation_dtype(x.dtype) == x.dtype:
        check_moved(x.clone(), cuts, None, salt)
    return found


def check_moved(memory, cuts, target, salt):
    """Moved in one reading as by selection and scattering; and it can be put back."""
    start, expected = memory.clone(), memory.clone()
    found = move_top_k_(memory, cuts, target, salt=salt)
    with _dispatch.force_reference():
        same(found, move_top_k_(expected, cuts, target))
    same((memory,), (expected,))
    places = found.positions + torch.from_numpy(cuts.starts.repeat(cuts.kept))
    memory[places] = found.before
    same((memory,), (start,))


def normal(d, seed=0):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KINDS = {
    "normal": normal,
    "heavy tails": lambda d: (normal(d) ** 7).clamp(-6e4, 6e4),
    "few values": lambda d: (normal(d) * 2).round(),
    "all equal": lambda d: torch.full((d,), -2.0, dtype=torch.float64),
    "ascending": lambda d: torch.arange(d, dtype=torch.float64) / d,
    "four fifths zero": lambda d: torch.where(normal(d, 1).abs() > 1.2816, normal(d), 0),
    "one huge": lambda d: torch.where(torch.arange(d) == d // 3, 6e4, 0.0).double(),
    "tiny": lambda d: normal(d) * 2.0**-20,
    "not finite": lambda d: torch.where(torch.arange(d) % 501 == 7, torch.nan, normal(d)).index_fill(
        0, torch.arange(0, d, 800), -torch.inf
    ),
    "all NaN": lambda d: torch.full((d,), torch.nan, dtype=torch.float64),
}
SIZES = (1, 63, 64, 65, 1000, (1 << 14) - 1, (1 << 14) + 1, 100_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(kind, dtype, threads):
    for d in SIZES if threads < 3 else SIZES[-2:]:
        x = KINDS[kind](d).to(dtype)
        memory = (normal(d, 2) / 3).to(accumulation_dtype(dtype))
        # PyTorch converts a 16-bit NaN to one pattern in the middle of a vector and to another at its end.
        memories = (memory, torch.zeros_like(memory))
        memories = () if x.itemsize == 2 and x.isnan().any() else memories
        for k in sorted({1, max(1, d // 100), max(1, d // 3), d}):
            for with_memory in (None, *memories):
                check(x, with_memory, SelectionTable.of([0], [d], k), salt=k)


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3])
def test_two_million(share, threads):
    d = 2_000_000
    x, memory = normal(d).float(), normal(d, 1).float()
    check(x, memory, SelectionTable.of([0], [d], int(d * share)))


@st.composite
def tables(draw):
    """Segments with gaps between them, in blocks or not."""
    starts, lengths, counts, blocks, lasts, at = [], [], [], [], [], draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 40) | st.integers(60, 70) | st.integers(300, 700))
        block = draw(st.just(0) | st.integers(1, 30) | st.just(256))
        inside = block if 0 < block < length else length
        rest = length % inside
        starts.append(at)
        lengths.append(length)
        blocks.append(block)
        counts.append(draw(st.integers(1, inside)))
        lasts.append(draw(st.integers(1, rest)) if rest else 0)
        at += length + draw(st.integers(0, 3))
    return SelectionTable.of(starts, lengths, counts, block=blocks, last=lasts), at


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, math.inf, -math.inf, math.nan, 2.0**-149, 2.0**-24, 65504.0]


@pytest.mark.parametrize("dtype", DTYPES)
@given(tables(), st.data())
def test_any_table(dtype, table, data):
    cuts, d = table
    pool = data.draw(st.lists(st.sampled_from(SPECIAL) | st.floats(-9, 9), min_size=1, max_size=8))
    choice = torch.randint(0, len(pool), (2, d), generator=torch.Generator().manual_seed(d))
    x, memory = torch.tensor(pool, dtype=torch.float64)[choice]
    check(x.to(dtype), None, cuts)
    if dtype.itemsize == 2:
        x = x.nan_to_num(0.0)  # see test_sizes
    check(x.to(dtype), memory.to(accumulation_dtype(dtype)), cuts)


def test_many_segments_of_all_lengths(threads):
    lengths = [1, 2, 3, 70_000, 1, 64, 255, 256, 1000, 12_345, 1, 40_000] * 4
    counts = [max(1, length // 90) for length in lengths[:-1]] + [lengths[-1]]
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
    d = sum(lengths)
    for x in (normal(d).float(), KINDS["few values"](d).float()):
        positions, _ = check(x, normal(d, 1).float(), SelectionTable.of(starts, lengths, counts))
        assert positions.shape == (sum(counts),)


@pytest.mark.parametrize("block", [1, 7, 64, 100, 256, 1024, 4096])
def test_blocks(block, threads):
    long = 50_000 if block >= 64 else 3_000
    lengths, starts = [long, 1, 3000, 20 * block], [0, long, long + 1, long + 3001]
    inside = [min(block, length) for length in lengths]
    rests = [length % b for length, b in zip(lengths, inside, strict=True)]
    cuts = SelectionTable.of(
        starts,
        lengths,
        [max(1, b // 50) for b in inside],
        block=block,
        last=[max(1, rest // 50) if rest else 0 for rest in rests],
    )
    for kind in ("normal", "few values", "not finite"):
        check(KINDS[kind](cuts.end).float(), normal(cuts.end, 1).float(), cuts)


def test_all_kept_values_are_finite_exactly_where_all_numbers_are():
    memory = torch.zeros(5000)
    cuts = SelectionTable.of([0, 4000], [4000, 1000], 1, block=[0, 300], last=[0, 1])
    for place in (0, 63, 3999, 4000, 4299, 4999):
        for bad in (math.nan, math.inf, -math.inf):
            x = normal(5000).float()
            assert top_k_segments(x, memory, cuts)[1].isfinite().all()
            x[place] = bad
            assert not top_k_segments(x, memory, cuts)[1].isfinite().all()
            assert not top_k_segments(memory, x, cuts)[1].isfinite().all()


@pytest.mark.parametrize("bound", [0, 0x3F800000, 0x7F000000, 0x7FFFFFFF])
def test_a_sample_that_misleads_changes_nothing(bound, threads, monkeypatch):
    """A bound far too high finds too few, one far too low too many."""
    asked = []

    def misled(*arguments):
        asked.append(arguments)
        return bound

    monkeypatch.setattr(topk_shared, "sample", misled)
    d = 200_000
    check(normal(d).float(), normal(d, 1).float(), SelectionTable.of([0], [d], 500))
    assert threads == 1 or asked


def test_large_numbers_exactly_where_the_sample_looks(threads):
    """Who knows the salt can mislead the first sample; the second is drawn elsewhere."""
    d, k, salt = 300_000, 300, 5
    x = normal(d).float()
    zero = torch.zeros(d)
    for attempt in range(2):
        places = torch.from_numpy(topk_bounds.sampled_places(d, k, salt + attempt))
        assert places.unique().numel() == places.numel()
        x[places] = 100.0
        check(x, zero, SelectionTable.of([0], [d], min(k, d)), salt=salt)
        check(x, zero, SelectionTable.of([0], [d], places.numel() + 1000), salt=salt)


def test_the_salt_changes_nothing(threads):
    d = 100_000
    x, memory = normal(d).float(), normal(d, 1).float()
    cuts = SelectionTable.of([0, 60_000], [60_000, 40_000], [600, 3000])
    expected = top_k_segments(x, memory, cuts)
    for salt in (1, 2, 10**12, -1):
        same(top_k_segments(x, memory, cuts, salt=salt), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_last_round_left_changes_nothing(dtype, threads):
    """Numbers that moved together, each segment by itself, or that were never there."""
    lengths, counts = [9000, 300, 64, 2000, 5000, 700] * 3, [90, 3, 1, 700, 1, 12] * 3
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
    blocks = [0, 64, 0, 100, 1000, 0] * 3
    counts = [min(count, block) if block else count for count, block in zip(counts, blocks, strict=True)]
    cuts = SelectionTable.of(starts, lengths, counts, block=blocks, last=[0, 1, 0, 0, 0, 0] * 3)
    d = sum(lengths)
    own = torch.tensor([1.0, 3.0, 0.01, 1.0, 1e4, 0.0] * 3).repeat_interleave(torch.tensor(lengths))
    for round_, scale in enumerate((1.0, 1.0, 1.3, own, 0.0, own, torch.nan, 1e-3)):
        check((normal(d, round_) * scale).to(dtype), None, cuts, salt=round_)
    generator = torch.Generator().manual_seed(0)
    for wrong in range(6):
        for hints in (each for plan in cuts.plans.values() for each in plan.hints):
            odd = torch.randint(-(2**62), 2**62, hints.shape, generator=generator) >> (wrong * 9)
            hints[:] = odd.numpy()
        check(normal(d, wrong).to(dtype), None, cuts)


@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), st.data())
def test_short_vectors_whose_bounds_mislead(kinds, data):
    """Whatever came before, in blocks that the nearest cache holds: too many candidates, too few, ties."""
    dtype = data.draw(st.sampled_from(DTYPES))
    block = data.draw(st.sampled_from([40, 64, 65, 300, 1024, 3000, 8192]))
    k = data.draw(st.sampled_from([1, 3, 20, 39]))
    d = data.draw(st.sampled_from([block, 3 * block, 3 * block + 39]))
    cuts = SelectionTable.of([0], [d], min(k, block), block=block, last=min(k, d % block))
    memory = (normal(d, 2) / 3).to(accumulation_dtype(dtype))
    for round_, kind in enumerate(kinds):
        x = KINDS[kind](d).to(dtype)
        check(x, None, cuts, salt=round_)
        if not x.isnan().any():
            check(x, memory, cuts, salt=round_)


def test_later_rounds_allocate_for_what_is_kept_alone(threads):
    d, k = 2_000_000, 1000
    x, memory = normal(d).float(), normal(d, 1).float()
    cuts = SelectionTable.of([0, d // 2], [d // 2, d // 2], [k - 100, 100])
    for _ in range(5):  # until every thread has lists of its own
        move_top_k_(memory, cuts, x)
    tracemalloc.start()
    move_top_k_(memory, cuts, x)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400_000  # a thread's first lists may still come; d numbers are 8 MB
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        move_top_k_(memory, cuts, x)
    tensors = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert 12 * k <= tensors < 400_000


def test_lists_for_very_many_candidates_are_given_back(monkeypatch):
    """In a thread of its own, which holds none yet."""
    monkeypatch.setattr(selection, "_KEEP", 10_000)
    x = normal(50_000).float()

    def held(k):
        check(x, None, SelectionTable.of([0], [50_000], k))
        return sum(each[1].size for each in selection._kept.__dict__["held"].values())

    with ThreadPoolExecutor(1) as own:
        assert own.submit(held, 20_000).result() <= 10_000
        assert own.submit(held, 100).result() > 0


def test_bad_arguments_are_refused():
    x = torch.zeros(10)
    with pytest.raises(ValueError, match="segments end at 11"):
        top_k_segments(x, None, SelectionTable.of([1], [10], 1))
    with pytest.raises(ValueError, match=r"10 torch.float32 numbers"):
        top_k_segments(x, x.double(), SelectionTable.of([0], [10], 1))
    with pytest.raises(ValueError, match="contiguous vector"):
        top_k_segments(torch.zeros(20)[::2], None, SelectionTable.of([0], [10], 1))
    for keep in (0, 11, -1):
        with pytest.raises(ValueError, match=f"segment 1 keeps {keep}"):
            SelectionTable.of([0, 0], [10, 10], [1, keep])
    with pytest.raises(ValueError, match="segment 0 has length 0"):
        SelectionTable.of([0], [0], [1])
    with pytest.raises(ValueError, match="segment 0 starts at -1"):
        SelectionTable.of([-1], [3], [1])
    with pytest.raises(ValueError, match="segment 0 keeps of its last block 0"):
        SelectionTable.of([0], [10], 1, block=4)
    with pytest.raises(ValueError, match="counts must be integers"):
        SelectionTable.of([0], [10], [0.5])
    with pytest.raises(ValueError, match="lengths must have one entry"):
        SelectionTable.of([0], [10, 3], 1)
