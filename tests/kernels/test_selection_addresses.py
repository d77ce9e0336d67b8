"""Top-k of segments wherever they lie, bit for bit against the plain form; nothing beside them is touched."""

import ctypes
import mmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moving import move_top_k_

from laconic.kernels import SelectionTable, _dispatch, set_threads, top_k_segments
from laconic.kernels.cpu import selection
from laconic.kernels.selection import select_segments
from laconic.kernels.tables import Vectors, accumulation_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
LENGTHS = [1, 3, 63, 64, 65, 127, 128, 200, 1000, 5000, 9000]
SEEN = {torch.float32: np.int32, torch.float64: np.int64, torch.bfloat16: np.int16}
PAGE = mmap.PAGESIZE


@pytest.fixture(params=[(1, False), (3, True)], ids=["alone", "threads-with-updates"])
def threads(request, monkeypatch):
    count, with_updates = request.param
    monkeypatch.setattr(selection, "_WORTH", 1 << 10)
    monkeypatch.setattr(selection, "_CUT", 1 << 11)
    monkeypatch.setattr(selection, "_with_updates", with_updates)
    set_threads(count)
    yield count
    set_threads(None)


def numbers(length, dtype, seed):
    x = torch.randn(length, generator=torch.Generator().manual_seed(1000 * length + seed))
    return ((x * 4).round() / 4 if seed % 2 else x).to(dtype)  # with ties in every second one


def scattered(parts, seed):
    """Copies of tensors in one array, in another order and with gaps; and the array."""
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
    gap = 7 + seed
    flat = torch.full((sum(map(len, parts)) + gap * (len(parts) + 1),), 1e9, dtype=parts[0].dtype)
    starts, at = np.zeros(len(parts), np.int64), gap
    for segment in order:
        flat[at : at + len(parts[segment])] = parts[segment]
        starts[segment] = at
        at += len(parts[segment]) + gap
    return Vectors.flat(flat, starts), flat


def cuts_of(lengths, block):
    """Of each segment, or of each of its blocks, a twentieth and at least one."""
    inside = [min(block, length) if block else length for length in lengths]
    rests = [length % each for length, each in zip(lengths, inside, strict=True)]
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    counts = [max(1, each // 20) for each in inside]
    return SelectionTable.of(
        starts, lengths, counts, block=block, last=[max(1, rest // 20) for rest in rests]
    )


def bits(tensor):
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])


def equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert torch.equal(bits(a), bits(b))


WAYS = ["x", "difference", "track", "drain", "sum", "drained sum"]


def operands(way, parts, held, seed):
    """What ``select_segments`` takes, and the flat tensors under it."""
    x, x_flat = scattered(parts, seed)
    memory, memory_flat = scattered(held, seed + 1)
    out, out_flat = scattered([torch.zeros_like(each) for each in held], seed + 2)
    given = {
        "x": (x, None, "none", None),
        "difference": (x, memory, "none", None),
        "track": (x, memory, "track", None),
        "drain": (None, memory, "drain", None),
        "sum": (x, memory, "sum", out),
        "drained sum": (x, memory, "drain", out),
    }[way]
    return given, (x_flat, memory_flat, out_flat)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [0, 40, 256])
def test_segments_lie_anywhere(way, dtype, block, threads):
    lengths = [*LENGTHS, 30_000]
    cuts = cuts_of(lengths, block)
    for round_ in range(3):
        parts = [numbers(length, dtype, round_) for length in lengths]
        held = [numbers(length, accumulation_dtype(dtype), round_ + 7) / 2 for length in lengths]
        (x, memory, move, out), flats = operands(way, parts, held, round_)
        found = select_segments(x, memory, cuts, salt=round_, move=move, out=out)
        (x, memory, move, out), expected = operands(way, parts, held, round_)
        with _dispatch.force_reference():
            plain = select_segments(x, memory, cuts, move=move, out=out)
        equal(found, plain)
        equal(flats, expected)  # the gaps, too


@given(st.data())
def test_any_lengths(data):
    lengths = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=6))
    cuts = cuts_of(lengths, data.draw(st.sampled_from([0, 3, 64, 100])))
    way, seed = data.draw(st.sampled_from(WAYS)), data.draw(st.integers(0, 9))
    parts = [numbers(length, torch.float32, seed) for length in lengths]
    held = [numbers(length, torch.float32, seed + 5) for length in lengths]
    (x, memory, move, out), flats = operands(way, parts, held, seed)
    found = select_segments(x, memory, cuts, move=move, out=out)
    (x, memory, move, out), expected = operands(way, parts, held, seed)
    with _dispatch.force_reference():
        equal(found, select_segments(x, memory, cuts, move=move, out=out))
    equal(flats, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_vectors_give_the_same(dtype):
    lengths = LENGTHS
    cuts = cuts_of(lengths, 0)
    parts = [numbers(length, dtype, 1) for length in lengths]
    held = [numbers(length, accumulation_dtype(dtype), 2) for length in lengths]
    x, memory = torch.cat(parts), torch.cat(held)
    expected = top_k_segments(x, memory, cuts)
    equal(select_segments(Vectors.of(parts), Vectors.of(held), cuts)[:2], expected)
    moved = move_top_k_(memory, cuts, x)
    equal(select_segments(Vectors.of(parts), Vectors.of(held), cuts, move="track"), moved)
    equal((torch.cat(held),), (memory,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_error_feedback_is_that_of_two_passes(dtype, threads):
    lengths = [9000, 300, 20_000, 1]
    for block in (0, 128):
        cuts = cuts_of(lengths, block)
        wide, d = accumulation_dtype(dtype), sum(lengths)
        x, e, out = numbers(d, dtype, 0), numbers(d, wide, 1), torch.empty(d, dtype=wide)
        before = e.clone()
        vectors = (Vectors.flat(each, cuts.starts) for each in (x, e, out))
        x_, e_, out_ = vectors
        found = select_segments(x_, e_, cuts, move="drain", out=out_)
        expected = torch.add(e, x)
        equal(found, move_top_k_(expected, cuts))
        equal((out, e), (expected, before))


LIBC = ctypes.CDLL(None, use_errno=True)


class Fenced:
    """Memory between two pages that nobody may touch: tensors at its very end, or at its very start."""

    def __init__(self, size):
        self.pages = -(-size // PAGE) * PAGE
        self.map = mmap.mmap(-1, self.pages + 2 * PAGE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for fence in (self.base, self.base + PAGE + self.pages):
            assert LIBC.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) == 0, ctypes.get_errno()

    def put(self, tensor, at_end):
        """A copy of the tensor, as ``Vectors`` of one segment."""
        array = tensor.numpy() if tensor.dtype != torch.bfloat16 else tensor.view(torch.int16).numpy()
        start = self.base + PAGE + (self.pages - array.nbytes if at_end else 0)
        memory = (ctypes.c_char * array.nbytes).from_address(start)
        seen = np.frombuffer(memory, array.dtype)
        seen[:] = array
        return Vectors(seen, np.zeros(1, np.int64), tensor.dtype, ())


@pytest.mark.skipif(not hasattr(LIBC, "mprotect"), reason="needs mprotect")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_read_or_written_beside_a_segment(way, dtype):
    """A segmentation fault would end the interpreter."""
    wide = accumulation_dtype(dtype)
    fences = [Fenced(80_000) for _ in range(3)]
    for length in [*LENGTHS, 2047, 2048, 2049, 8191, 8192, 8193]:
        for at_end in (True, False):
            for block in (0, 50, 64, 1000):
                cuts = cuts_of([length], block)
                for round_ in range(2):
                    tensors = (
                        numbers(length, dtype, round_),
                        numbers(length, wide, 5),
                        torch.zeros(length, dtype=wide),
                    )
                    x, memory, out = (
                        fence.put(tensor, at_end) for fence, tensor in zip(fences, tensors, strict=True)
                    )
                    given = {
                        "x": (x, None, "none", None),
                        "difference": (x, memory, "none", None),
                        "track": (x, memory, "track", None),
                        "drain": (None, memory, "drain", None),
                        "sum": (x, memory, "sum", out),
                        "drained sum": (x, memory, "drain", out),
                    }[way]
                    found = select_segments(*given[:2], cuts, salt=round_, move=given[2], out=given[3])
                    assert found.positions.numel() == cuts.total


def test_bad_operands_are_refused():
    cuts = SelectionTable.of([0, 5], [5, 5], 1)
    starts = np.array([0, 5])
    x = Vectors.flat(torch.zeros(10), starts)
    with pytest.raises(ValueError, match="move='track' does not take x;"):
        select_segments(x, None, cuts, move="track")
    with pytest.raises(ValueError, match="move='none' does not take nothing"):
        select_segments(None, None, cuts)
    with pytest.raises(ValueError, match="move='wrong' does not take x"):
        select_segments(x, None, cuts, move="wrong")
    with pytest.raises(ValueError, match=r"memory must be torch.float32, got torch.float64"):
        select_segments(x, Vectors.flat(torch.zeros(10).double(), starts), cuts)
    with pytest.raises(ValueError, match=r"x must be .* got torch.float16"):
        select_segments(Vectors.flat(torch.zeros(10).half(), starts), x, cuts)
    with pytest.raises(ValueError, match="x has 1 segments, but the selection table has 2"):
        select_segments(Vectors.flat(torch.zeros(10), starts[:1]), None, cuts)
    with pytest.raises(ValueError, match=r"segments of x lie in \[0, 11\), outside \[0, 10\)"):
        select_segments(Vectors.flat(torch.zeros(10), np.array([0, 6])), None, cuts)
    with pytest.raises(ValueError, match="out must be another vector than the memory"):
        select_segments(x, x, cuts, move="drain", out=x)
    empty = SelectionTable.of([], [], [])
    nothing = Vectors.flat(torch.zeros(0), np.empty(0, np.int64))
    assert select_segments(nothing, nothing, empty, move="track").before.shape == (0,)
