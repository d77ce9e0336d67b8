"""Several segments in one call equal the segments one by one, for every compressor."""

import pytest
import torch
from zoo import ALL_COMPRESSORS

import laconic
from laconic.compressors import Compressor, NotFiniteError
from laconic.kernels import Stream

LAYOUT = laconic.Layout.of({"a": (40,), "b": (3, 25), "c": (63,)})
SEGMENTS = [LAYOUT.segments[i] for i in (2, 0)]
DRAW = Stream(seed=3, round=5, node=1)
# A scaled one and one with blocks that end short are of a kind of their own.
WIDE = [
    *ALL_COMPRESSORS,
    laconic.TopK(0.1).scaled(0.5),
    laconic.BlockTopK(2, 16) >> laconic.Cast(torch.bfloat16),
]


def same(part, other):
    tensors, others = part.tensors(), other.tensors()
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    plain = [(p.d, p.dtype, p.grid, p.factor, p.seeded, p.block, p.cells) for p in (part, other)]
    return plain[0] == plain[1]


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tracked", [False, True], ids=["alone", "against a memory"])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["a vector", "a batch"])
def test_one_call_for_all_segments(compressor, dtype, tracked, batch):
    generator = torch.Generator().manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    target = torch.randn(*batch, LAYOUT.d, generator=generator, dtype=dtype)
    memory = torch.randn(*batch, LAYOUT.d, generator=generator, dtype=wide) if tracked else None
    found = compressor.encode_segments(SEGMENTS, DRAW, target, memory)
    assert len(found) == len(SEGMENTS)
    for part, expected in zip(
        found, Compressor.encode_segments(compressor, SEGMENTS, DRAW, target, memory), strict=True
    ):
        assert same(part, expected)


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(compressor, bad):
    for place in (0, 39, 115, 177):
        target = torch.ones(LAYOUT.d)
        target[place] = bad
        with pytest.raises(NotFiniteError, match="skip this step"):
            compressor.encode_segments(SEGMENTS, DRAW, target)
    target = torch.ones(LAYOUT.d)
    target[50] = bad  # in the segment that is not asked for
    compressor.encode_segments(SEGMENTS, DRAW, target)


def test_a_difference_that_overflows_is_not_finite():
    target, memory = torch.full((LAYOUT.d,), 3e38), torch.zeros(LAYOUT.d)
    memory[3] = -3e38
    for compressor in (laconic.TopK(1), laconic.TopK(1) >> laconic.ScaledSign(), laconic.ScaledSign()):
        with pytest.raises(NotFiniteError):
            compressor.encode_segments(SEGMENTS, DRAW, target, memory)


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_vector_moves_as_by_compressing_and_adding(compressor, dtype):
    generator = torch.Generator().manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    target = torch.randn(300, generator=generator, dtype=dtype)
    memory = torch.randn(300, generator=generator, dtype=wide)
    found, expected = memory.clone(), memory.clone()
    message = compressor.track_(found, target, DRAW)
    other = Compressor.track_(compressor, expected, target, DRAW)
    assert same(message.parts[0], other.parts[0])
    assert torch.equal(found, expected)
    message, other = compressor.drain_(found, DRAW), Compressor.drain_(compressor, expected, DRAW)
    assert same(message.parts[0], other.parts[0])
    assert torch.equal(found, expected)


def test_top_k_moves_in_one_reading():
    """Else the tests above hold one thing against itself."""
    memory, target = torch.zeros(LAYOUT.d), torch.ones(LAYOUT.d)
    for compressor in (laconic.TopK(3), laconic.BlockTopK(1, 8), laconic.TopK(3).contractive()):
        assert compressor.move_segments_(SEGMENTS, DRAW, memory, target) is not None
    for compressor in (laconic.RandK(3), laconic.TopK(3).scaled(0.5), laconic.ScaledSign()):
        assert compressor.move_segments_(SEGMENTS, DRAW, memory, target) is None
