"""What is compressed in one reading: the same messages and memories as with each vector formed."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic as lc
from laconic.compressors import Compressor
from laconic.kernels import Stream, set_threads, steps

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
    monkeypatch.setattr(steps, "_LONG", 1)


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
    long, steps._LONG = steps._LONG, 2**62
    try:
        return compressor.encode(numbers, draw)
    finally:
        steps._LONG = long


def same_message(found, expected):
    (a,), (b,) = found.parts, expected.parts
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert torch.equal(bits(one), bits(other)), field.name
        else:
            assert one == other


def check(compressor, target, memory, draw):
    """Each fused form of one step against what it is defined as."""
    difference = target - memory
    expected = formed(compressor, difference, draw)
    tracked, drained = memory.clone(), difference.clone()
    expected.add_to(tracked)
    expected.add_to(drained, weight=-1.0)

    same_message(compressor.encode(difference, draw), expected)
    kept = memory.clone()
    same_message(compressor.encode_difference(target, kept, draw), expected)
    assert torch.equal(bits(kept), bits(memory))

    same_message(compressor.track_(kept, target, draw), expected)
    assert torch.equal(bits(kept), bits(tracked))

    residual = difference.clone()
    same_message(compressor.drain_(residual, draw), expected)
    assert torch.equal(bits(residual), bits(drained))


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
def test_rows_of_a_batch_are_compressed_alone(compressor):
    target = torch.stack([x[:1500] for x in vectors(1500, torch.float32).values()]).reshape(11, 1, 1500)
    target = target.expand(11, 2, 1500).contiguous()
    memory = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    seeds, nodes = torch.arange(11)[:, None] * 2**40, torch.tensor([7, 2**32 - 1])
    draw = Stream(seeds, 3, nodes, 2)
    check(compressor, target, memory, draw)
    batch = compressor.encode_difference(target, memory, draw).dense()
    for i, j in ((0, 0), (6, 1)):
        one = Stream(int(seeds[i]), 3, int(nodes[j]), 2)
        alone = compressor.encode_difference(target[i, j], memory[i, j], one).dense()
        assert torch.equal(bits(batch[i, j]), bits(alone))


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
def test_what_the_loops_do_not_take_goes_the_plain_way(compressor):
    target, memory = torch.randn(3000, 2).T, torch.randn(2, 3000)
    expected = formed(compressor, target - memory, Stream(seed=1))
    same_message(compressor.encode_difference(target, memory, Stream(seed=1)), expected)
    wide = torch.randn(3000, dtype=torch.float64)
    narrow = torch.randn(3000)
    expected = formed(compressor, narrow - wide, Stream(seed=1))
    same_message(compressor.encode_difference(narrow, wide, Stream(seed=1)), expected)
    half = torch.randn(3000).to(torch.float16)
    expected = formed(compressor, half.float(), Stream(seed=1))
    same_message(compressor.encode(half, Stream(seed=1)), expected)
    with pytest.raises(TypeError, match="accumulate in"):
        compressor.drain_(half.clone(), Stream(seed=1))


def test_a_residual_tracked_for_rounds_stays_the_same():
    """The composition over rounds, as EF21 and EF14 use it."""
    fused, plain = torch.zeros(5000), torch.zeros(5000)
    compressor = lc.NaturalCompression()
    for t in range(5):
        target = torch.randn(5000, generator=torch.Generator().manual_seed(t))
        compressor.track_(fused, target, Stream(seed=1, round=t))
        plain += formed(compressor, target - plain, Stream(seed=1, round=t)).dense()
    assert torch.equal(bits(fused), bits(plain))


def test_every_quantiser_reads_once():
    for compressor in QUANTISERS:
        assert type(compressor).track_ is not Compressor.track_
