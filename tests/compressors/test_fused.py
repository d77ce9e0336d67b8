"""What is compressed in one reading: the same messages as with each vector formed."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic as lc
from laconic.compressors import Job
from laconic.formats import accumulation_dtype, group_formats
from laconic.kernels import Stream, segmented, set_threads
from laconic.kernels.tables import SegmentedVector
from laconic.messages import Message

QUANTISERS = [
    lc.UnbiasedRounding(2.0),
    lc.UnbiasedRounding(1.3),
    lc.UnbiasedRounding(grid=(1, 1.5, 2)),
    lc.BiasedRounding(2.0),
    lc.BiasedRounding(1.1),
    lc.BiasedRounding(10.0),
    lc.NaturalCompression(),
    lc.ExponentialDithering(2.0, 4, math.inf),
    lc.ExponentialDithering(1.5, 5, 3.0),
    lc.NaturalDithering(8, 2.0),
    lc.RandomDithering(4, 2.0),
    lc.RandomDithering(127, 2.0),
    lc.RandomDithering(255, 1.0),
    lc.RandomDithering(2**20, 2.0),
    lc.Ternary(),
    lc.ScaledSign(),
    lc.BlockQuantizer(bits=4),
    lc.BlockQuantizer(bits=8, block=100),
    lc.BlockQuantizer(bits=3, block=3000),
    lc.ClippedExponent(bits=3),
    lc.Cast(torch.bfloat16),
    lc.Cast(torch.float16),
]
DTYPES = [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
SIZES = [1, 63, 64, 65, 1023, 1025, 4095, 4096, 4097]

quantisers = pytest.mark.parametrize("compressor", QUANTISERS, ids=lambda c: repr(c).replace("torch.", ""))


@pytest.fixture(autouse=True)
def all_rows_are_long(monkeypatch):
    monkeypatch.setattr(segmented, "_LONG", 1)


def bits(tensor):
    if tensor.is_floating_point():
        widths = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        return tensor.contiguous().view(widths[tensor.element_size()])
    return tensor


def vectors(d, dtype, seed=0):
    """Vectors that break shortcuts: zeros of both signs, subnormal and huge numbers, one number alone."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(d, generator=generator, dtype=torch.float64)
    info = torch.finfo(dtype)
    alone = torch.zeros(d, dtype=torch.float64)
    alone[d // 2] = -3.0
    span = math.log2(info.max) - math.log2(info.tiny)
    wide = normal * torch.exp2(
        torch.rand(d, generator=generator, dtype=torch.float64) * span + math.log2(info.tiny)
    )
    mixed = torch.where(torch.rand(d, generator=generator) < 0.5, normal * info.tiny / 8, normal)
    found = {
        "normal": normal,
        "zeros": torch.zeros(d, dtype=torch.float64),
        "negative zeros": -torch.zeros(d, dtype=torch.float64),
        "alone": alone,
        "subnormal": normal * info.tiny / 16,
        "huge": normal.clamp(-1, 1) * (info.max / 4),
        "wide": wide.clamp(-info.max / 4, info.max / 4),
        "mixed": mixed,
        "late and huge": torch.where(torch.arange(d) == d - 1, info.max / 4, mixed),
        "powers": torch.exp2((normal * 4).round()),
        "middles": torch.exp2((normal * 4).round()) * 1.5,
    }
    return {name: x.to(dtype) for name, x in found.items()}


def formed(compressor, numbers, draw):
    """The message by plain PyTorch."""
    long, segmented._LONG = segmented._LONG, 2**62
    try:
        return compressor.encode(numbers, draw)
    finally:
        segmented._LONG = long


def same_part(a, b):
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert torch.equal(bits(one), bits(other)), field.name
        else:
            assert one == other


def same_message(found, expected):
    for a, b in zip(found.parts, expected.parts, strict=True):
        same_part(a, b)


def job_of(compressor, target, memory, draw, update="none", lengths=None):
    """A job on segments of the given lengths, numbered from the draw's own number."""
    lengths = lengths or [target.shape[-1]]
    dtype = accumulation_dtype(target.dtype) if memory is None else memory.dtype
    numbers = range(draw.segment, draw.segment + len(lengths))
    (one,) = group_formats([compressor.structure(d, dtype) for d in lengths], numbers=list(numbers))
    out = torch.zeros_like(memory) if update == "drain" else None
    return Job(one, draw, SegmentedVector.of(target), memory, update, out)


def check(compressor, target, memory, draw):
    """The message of a vector, of a difference and of a sum against the definition."""
    difference = target - memory
    expected = formed(compressor, difference, draw)
    same_message(compressor.encode(difference, draw), expected)
    kept = memory.clone()
    for update in ("none", "track"):
        found = compressor.compress_group(job_of(compressor, target, kept, draw, update))
        assert found.undo is None
        same_message(Message([found.group]), expected)
        assert torch.equal(bits(kept), bits(memory))
    total = memory + target
    if bool(torch.isfinite(total).all()):
        job = job_of(compressor, target, kept, draw, "drain")
        found, expected = compressor.compress_group(job), formed(compressor, total, draw)
        same_message(Message([found.group]), expected)
        assert torch.equal(bits(kept), bits(memory))
        assert torch.equal(bits(job.out), bits(total + -expected.dense().to(total.dtype)))


@quantisers
@pytest.mark.parametrize(("dtype", "wide"), DTYPES, ids=["float32", "bfloat16", "float64"])
def test_one_reading_is_the_definition(compressor, dtype, wide):
    for number, d in enumerate(SIZES):
        memory = torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=wide)
        draw = Stream(seed=number - 3, round=number, node=number * 1000, segment=number % 3)
        for name, target in vectors(d, dtype).items():
            if d in (1, 65, 4097) or name in ("normal", "wide", "mixed"):
                check(compressor, target, memory, draw)
                check(compressor, target, torch.zeros(d, dtype=wide), draw)


@quantisers
def test_long_rows_in_threads(compressor):
    d = 200_003
    memory = torch.randn(d, generator=torch.Generator().manual_seed(1))
    set_threads(3)
    try:
        for name, target in vectors(d, torch.float32).items():
            if name in ("normal", "mixed", "late and huge"):
                check(compressor, target, memory, Stream(seed=5))
                check(compressor, target, torch.zeros(d), Stream(seed=5))
    finally:
        set_threads(None)


@quantisers
@pytest.mark.parametrize(("dtype", "wide"), DTYPES, ids=["float32", "bfloat16", "float64"])
def test_segments_in_one_call_are_the_segments_alone(compressor, dtype, wide):
    """Long and short ones, wherever blocks and lanes of the loops end."""
    lengths = [1, 4097, 63, 2, 70_001, 64, 1025]
    d = sum(lengths)
    memory = torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=wide)
    draw = Stream(seed=5, round=2, node=3, segment=4)
    set_threads(2)
    try:
        for target in (vectors(d, dtype)[name] for name in ("normal", "wide", "mixed")):
            found = compressor.compress_group(job_of(compressor, target, memory, draw, lengths=lengths))
            pieces = zip(target.split(lengths), memory.split(lengths), strict=True)
            for number, (part, (x, h)) in enumerate(zip(found.group.parts(), pieces, strict=True)):
                same_part(part, formed(compressor, x - h, draw.at(4 + number)).parts[0])
    finally:
        set_threads(None)


@quantisers
def test_rows_of_a_batch_are_compressed_alone(compressor):
    target = torch.stack([x[:1500] for x in vectors(1500, torch.float32).values()]).reshape(11, 1, 1500)
    target = target.expand(11, 2, 1500).contiguous()
    memory = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    seeds, nodes = torch.arange(11)[:, None] * 2**40, torch.tensor([7, 2**32 - 1])
    draw = Stream(seeds, 3, nodes, 2)
    difference = target - memory
    expected = formed(compressor, difference, draw)
    same_message(compressor.encode(difference, draw), expected)
    together = compressor.compress_group(job_of(compressor, target, memory, draw))
    same_message(Message([together.group]), expected)
    batch = Message([together.group]).dense()
    for i, j in ((0, 0), (6, 1)):
        one = Stream(int(seeds[i]), 3, int(nodes[j]), 2)
        alone = compressor.compress_group(job_of(compressor, target[i, j], memory[i, j].clone(), one))
        assert torch.equal(bits(batch[i, j]), bits(Message([alone.group]).dense()))


@pytest.mark.parametrize(
    "compressor", [lc.NaturalCompression(), lc.BiasedRounding(2.0), lc.RandomDithering(3)]
)
@settings(max_examples=60)
@given(data=st.data())
def test_any_numbers(compressor, data):
    width = data.draw(st.sampled_from([32, 64]))
    dtype = torch.float32 if width == 32 else torch.float64
    number = st.floats(allow_nan=False, allow_infinity=False, width=width)
    x = torch.tensor(data.draw(st.lists(number, min_size=1, max_size=40)), dtype=dtype)
    draw = Stream(seed=data.draw(st.integers(0, 2**64 - 1)), round=data.draw(st.integers(0, 2**32 - 1)))
    same_message(compressor.encode(x, draw), formed(compressor, x, draw))


@pytest.mark.parametrize("compressor", [lc.NaturalCompression(), lc.ScaledSign(), lc.Cast(torch.bfloat16)])
@pytest.mark.parametrize("update", ["none", "track", "drain"])
def test_what_the_loops_do_not_take_goes_the_plain_way(compressor, update):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 3000, generator=generator)
    batch = torch.randn(3000, 2, generator=generator).T
    strided = torch.randn(3000, 2, generator=generator)[:, 0]
    half = torch.randn(3000, generator=generator).to(torch.float16)
    for target, memory in (
        (batch, whole),
        (strided, whole[0]),
        (whole[0], strided),
        (half, whole[0]),
    ):
        x = memory + target if update == "drain" else target - memory
        job = job_of(compressor, target, memory.clone(), Stream(seed=1), update)
        same_message(Message([compressor.compress_group(job).group]), formed(compressor, x, Stream(seed=1)))
    same_message(compressor.encode(half, Stream(seed=1)), formed(compressor, half.float(), Stream(seed=1)))


@quantisers
def test_every_quantiser_works_on_all_segments_in_one_call(compressor):
    """Else the tests above hold one thing against itself."""
    target, memory = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    for update in ("none", "track", "drain"):
        job = job_of(compressor, target, memory, Stream(seed=1), update, [1000, 2000])
        assert compressor.compress_together(job) is not None
