"""What is packed comes back bit for bit, in as many bytes as were announced."""

from dataclasses import replace
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from corpus import corpus, layout, messages
from hypothesis import given, settings
from same import assert_same, plain
from zoo import ALL_COMPRESSORS

import laconic as lc
from laconic.formats import accumulation_dtype
from laconic.wire import WireError, _values, pack_into, packed_size, read_frame

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
NUMELS = (3, 40, 5, 17, 3, 64, 9, 130, 33, 8, 21, 12)


def vector(seed, d, dtype):
    """Numbers of unlike magnitudes, zeros of both signs among them."""
    generator = torch.Generator().manual_seed(seed)
    power, zeros = (1, 5)[seed % 2], (0.0, 0.5, 1.0)[seed % 3]
    x = torch.randn(d, generator=generator, dtype=torch.float64) ** power
    x[torch.rand(d, generator=generator) < zeros] = 0.0
    x[torch.rand(d, generator=generator) < 0.1] *= -0.0
    return x.clamp(-6e4, 6e4).to(dtype)


def assert_travels(message, known):
    """With a description and without, in forms of fixed size and adaptive ones; ``known`` is the format."""
    packed = lc.pack(message)
    assert packed.shape == (message.nbytes,)
    assert packed_size(message) == message.nbytes
    assert_same(lc.unpack(packed), message)
    assert_same(lc.unpack(packed, expect=known), message)

    bare = lc.pack(message, expect=known)
    assert bare.numel() == packed_size(message, expect=known) <= known.max_nbytes
    assert not known.fixed or bare.numel() == known.max_nbytes
    assert_known(lc.unpack(bare, expect=known, round=message.round), message, known)
    assert_known(lc.unpack(bare, frame=read_frame(bare), expect=known), message, known)

    adapted = known.adapted()
    tight = lc.pack(message, expect=adapted)
    assert tight.numel() == packed_size(message, expect=adapted) <= adapted.max_nbytes
    assert_known(lc.unpack(tight, expect=adapted), message, adapted)
    described = lc.pack(message, adaptive=True)
    found = lc.unpack(described)
    assert_same(found, message)
    assert torch.equal(lc.pack(found), described)


def assert_known(found, message, known):
    assert_same(found, message)
    assert all(group.format is one for group, one in zip(found.groups, known.groups, strict=True))


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(d=st.integers(2, 300), seed=st.integers(0, 2**32), round=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_unpack_inverts_pack_for_every_compressor(compressor, dtype, d, seed, round):
    x = vector(seed, d, dtype)
    message = compressor.compress(x, torch.Generator().manual_seed(seed % 10))
    message = replace(message, digest=7, round=round)
    assert_travels(message, replace(message.format))
    (group,) = message.groups
    assert plain(group).segment_formats[0] == compressor.structure(d, dtype) or group.format.kind.seeded


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unpack_inverts_pack_for_many_segments(compressor, dtype):
    shapes = {f"s{i}": (numel,) for i, numel in enumerate(NUMELS)}
    many = lc.Layout.of(shapes, bfloat16=["s2"], exact=["s4"])
    for seed in range(3):
        method = lc.DCGD(compressor)
        message = method.sender(many, node=1, seed=seed, dtype=dtype).send(vector(seed, many.d, dtype))
        known = method.format(many, accumulation_dtype(dtype), 0)
        assert message.format == known
        assert_travels(message, known)


@pytest.mark.parametrize("sample", corpus(), ids=lambda sample: sample.name)
def test_every_form_of_every_message_comes_back(sample):
    assert_same(lc.unpack(sample.packed, expect=sample.expect), sample.message)


def test_batches_weigh_what_their_messages_weigh_together():
    x = torch.randn(3, 4, 200)
    for compressor in (lc.TopK(7), lc.RandomSparsification(0.2), lc.RandK(0.4), lc.BlockQuantizer(4, 16)):
        batch = compressor.compress(x, torch.Generator().manual_seed(0))
        each = [one for row in batch.unbind() for one in row.unbind()]
        assert sum(lc.pack(one).numel() for one in each) == batch.nbytes
        for one in each:
            assert_same(lc.unpack(lc.pack(one)), one)


def test_a_batch_does_not_travel_as_one_message():
    with pytest.raises(ValueError, match=r"unbind\(\)"):
        lc.pack(lc.TopK(1).compress(torch.randn(2, 3)))


def test_pack_into_writes_the_same_bytes_and_no_others():
    message = lc.TopK(3).compress(torch.randn(50))
    packed = lc.pack(message)
    buffer = torch.full((packed.numel() + 9,), 77, dtype=torch.uint8)
    assert pack_into(message, buffer) == packed.numel()
    assert torch.equal(buffer[: packed.numel()], packed)
    assert bool((buffer[packed.numel() :] == 77).all())
    assert read_frame(buffer).length == packed.numel()
    strided = torch.zeros(packed.numel(), 2, dtype=torch.uint8)[:, 0]
    pack_into(message, strided)
    assert torch.equal(strided, packed)
    with pytest.raises(ValueError, match="the buffer has"):
        pack_into(message, buffer[: packed.numel() - 1])
    with pytest.raises(ValueError, match="uint8"):
        pack_into(message, torch.zeros(1000))


def test_columns_may_be_strided():
    """Rows of a batch, and single columns of two dimensions."""
    x = torch.randn(40, 2)
    for compressor in (lc.TopK(5), lc.ScaledSign(), lc.Identity(), lc.Cast(torch.bfloat16)):
        (group,) = compressor.compress(x.T.contiguous()).groups
        (expected, _) = lc.Message((group,)).unbind()
        strided = {
            name: torch.stack([tensor, tensor], dim=-1)[..., 0][0] for name, tensor in group.tensors().items()
        }
        message = lc.Message((group.with_tensors(strided),))
        assert torch.equal(lc.pack(message), lc.pack(expected))


def test_bytes_and_memory_views_unpack_too():
    message = lc.TopK(3).compress(torch.randn(50))
    packed = lc.pack(message).numpy().tobytes()
    for form in (packed, bytearray(packed), memoryview(packed)):
        assert_same(lc.unpack(form), message)
    with pytest.raises(TypeError, match="uint8"):
        lc.unpack(torch.zeros(50))


def test_unpacking_does_not_alias_the_buffer():
    packed = lc.pack(lc.Identity().compress(torch.ones(8)))
    message = lc.unpack(packed)
    packed.zero_()
    assert torch.equal(message.dense(), torch.ones(8))


def test_seeded_positions_travel_as_a_seed_that_makes_them_again():
    message = lc.RandK(1000).compress(torch.randn(10_000), torch.Generator().manual_seed(5))
    assert message.nbytes < 4 * 1000 + 100
    assert_same(lc.unpack(lc.pack(message)), message)
    few = lc.RandK(2).compress(torch.randn(10_000), torch.Generator().manual_seed(5))
    assert not few.format.groups[0].kind.sends_seed  # four bytes of positions are less than a seed


def test_all_nodes_share_the_origin_of_shared_positions():
    batch = lc.RandK(100, shared=True).compress(torch.randn(3, 1000), torch.Generator().manual_seed(5))
    one, two, three = batch.unbind()
    for other in (two, three):
        assert torch.equal(one.groups[0].origin, other.groups[0].origin)
        assert torch.equal(lc.unpack(lc.pack(other)).groups[0].positions, one.groups[0].positions)


def test_a_selection_of_segments_draws_as_they_do_in_the_whole_layout():
    """The numbers of segments travel with a seed; those of the format are taken where one is expected."""
    whole = lc.Layout.of({"a": (300,), "b": (40,), "c": (500,)})
    part = whole.select(["c", "b"])
    method = lc.DCGD(lc.RandK(0.5))
    message = method.sender(part, node=1, seed=2).send(torch.randn(540))
    assert message.format.groups[0].table.numbers == (2, 1)
    assert_travels(message, method.format(part, torch.float32, 0))


@pytest.mark.parametrize(
    ("name", "message"), list(messages())[-18:], ids=lambda v: v if isinstance(v, str) else ""
)
def test_dense_and_silent_rounds_travel_under_the_format_of_the_method(name, message):
    method = lc.EF21Plus if "Plus" in name else lc.EF21
    known = method(lc.TopK(0.2)).format(layout(), torch.float32, 1)
    packed = lc.pack(message, expect=known)
    frame = read_frame(packed)
    first = "round 0" in name
    assert frame.dense == (first and "gradient" in name)
    assert frame.silent == (first and "zero" in name)
    assert (
        packed.numel() == (known.dense if frame.dense else known.silent if frame.silent else known).max_nbytes
    )
    assert_same(lc.unpack(packed, expect=known), message)
    assert_same(lc.unpack(lc.pack(message), expect=known), message)
    with pytest.raises(ValueError, match="replace_flags"):
        lc.pack(message, expect=replace(known, replace_flags=not known.replace_flags))
    with pytest.raises(WireError, match="method"):
        lc.unpack(packed, expect=replace(known, replace_flags=not known.replace_flags))


def test_a_decoded_message_is_added_without_a_dense_tensor():
    """What add_to allocates does not grow with d."""
    message = lc.unpack(lc.pack(lc.TopK(10).compress(torch.randn(1_000_000))))
    out = torch.zeros(1_000_000)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        message.add_to(out, weight=0.5)
    largest = max((event.self_cpu_memory_usage for event in profile.key_averages()), default=0)
    assert largest < 10_000


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32], ids=str)
def test_the_largest_levels_of_segments_are_found_alike_on_a_device(dtype):
    """By a tensor in main memory, which stands in for the device's."""
    most = torch.iinfo(dtype)
    codes = torch.randint(-100, 100, (50,), generator=torch.Generator().manual_seed(0)).to(dtype)
    codes[7], codes[30] = most.min, most.max
    for cuts in ([0, 50], [0, 0, 7, 7, 8, 29, 50, 50], [0, 10, 50]):
        bounds = np.array(cuts)
        here = _values._largest_levels(codes, bounds)
        assert np.array_equal(here, _values._largest_levels_on_device(codes, bounds))
        pieces = [codes[a:b].to(torch.int64).abs() for a, b in pairwise(cuts)]
        assert here.tolist() == [int(piece.max()) if piece.numel() else 0 for piece in pieces]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_messages_travel_from_and_to_a_gpu():
    for compressor in (
        lc.TopK(0.1) >> lc.BlockQuantizer(4),
        lc.NaturalCompression(),
        lc.Cast(torch.bfloat16),
    ):
        message = compressor.compress(
            torch.randn(1000, device="cuda"), torch.Generator("cuda").manual_seed(0)
        )
        packed = lc.pack(message)
        assert packed.device.type == "cuda"
        assert torch.equal(packed.cpu(), lc.pack(message.to("cpu")))
        assert_same(lc.unpack(packed), message)
