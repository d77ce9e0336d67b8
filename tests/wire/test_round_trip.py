"""What is packed comes back bit for bit, in as many bytes as were announced."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from corpus import corpus, messages
from hypothesis import given, settings
from same import assert_same
from zoo import ALL_COMPRESSORS

import laconic as lc
from laconic.wire import Schema, WireError, max_nbytes, pack_into, packed_size, read_frame

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def vectors(draw, dtype):
    d = draw(st.integers(2, 300))
    seed = draw(st.integers(0, 2**32))
    power = draw(st.sampled_from([1, 5]))
    zeros = draw(st.sampled_from([0.0, 0.5, 1.0]))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(d, generator=generator, dtype=torch.float64) ** power
    x[torch.rand(d, generator=generator) < zeros] = 0.0
    x[torch.rand(d, generator=generator) < 0.1] *= -0.0
    return x.clamp(-6e4, 6e4).to(dtype)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
@settings(max_examples=15)
def test_unpack_inverts_pack_for_every_compressor(compressor, dtype, data):
    x = vectors(data.draw, dtype)
    layout = lc.Layout.flat(x.shape[-1])
    message = compressor.compress(x, torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    message = replace(message, digest=layout.digest, round=data.draw(st.integers(0, 2**32 - 1)))

    packed = lc.pack(message)
    assert packed.shape == (message.nbytes,)
    assert packed_size(message) == message.nbytes
    assert_same(lc.unpack(packed), message)

    schema = Schema.of(layout, compressor, dtype)
    bare = lc.pack(message, expect=schema)
    assert bare.numel() == packed_size(message, expect=schema)
    assert bare.numel() <= schema.max_nbytes == max_nbytes(layout, compressor, dtype)
    assert not schema.fixed or bare.numel() == schema.max_nbytes
    assert_same(lc.unpack(bare, expect=schema, round=message.round), message)

    schema = Schema.of(layout, compressor, dtype, adaptive=True)
    tight = lc.pack(message, expect=schema)
    assert tight.numel() == packed_size(message, expect=schema) <= schema.max_nbytes
    assert_same(lc.unpack(tight, expect=schema), message)
    assert_same(lc.unpack(lc.pack(message, adaptive=True)), message)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [2, 5, 16, 1000])
def test_the_structure_computed_from_settings_is_that_of_messages(compressor, dtype, d):
    asked = lc.Compressor.structure(compressor, d, dtype)
    assert compressor.structure(d, dtype) == asked


@pytest.mark.parametrize("sample", corpus(), ids=lambda sample: sample.name)
def test_every_form_of_every_message_comes_back(sample):
    assert_same(lc.unpack(sample.packed, expect=sample.expect), sample.message)
    assert lc.pack(lc.unpack(sample.packed, expect=sample.expect), expect=sample.expect).numel() > 0


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


def test_bytes_and_memory_views_unpack_too():
    message = lc.TopK(3).compress(torch.randn(50))
    packed = lc.pack(message).numpy().tobytes()
    for form in (packed, bytearray(packed), memoryview(packed)):
        assert_same(lc.unpack(form), message)
    with pytest.raises(TypeError, match="uint8"):
        lc.unpack(torch.zeros(30))


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
    assert few.parts[0].origin is None  # four bytes of positions are less than a seed


def test_all_nodes_share_the_origin_of_shared_positions():
    batch = lc.RandK(100, shared=True).compress(torch.randn(3, 1000), torch.Generator().manual_seed(5))
    one, two, three = batch.unbind()
    for other in (two, three):
        assert torch.equal(one.parts[0].origin, other.parts[0].origin)
        assert torch.equal(lc.unpack(lc.pack(other)).parts[0].positions, one.parts[0].positions)


@pytest.mark.parametrize(
    ("name", "message"), list(messages())[-18:], ids=lambda v: v if isinstance(v, str) else ""
)
def test_dense_and_silent_rounds_travel_under_the_schema_of_the_method(name, message):
    layout = lc.Layout.of({"weight": (10, 13), "bias": (5,), "head": (125,)}, exact=["bias"])
    schema = Schema.of(layout, lc.TopK(0.2), choosing="Plus" in name)
    packed = lc.pack(message, expect=schema)
    frame = read_frame(packed)
    first = "round 0" in name
    assert frame.dense == (first and "gradient" in name)
    assert frame.silent == (first and "zero" in name)
    assert packed.numel() <= (schema.dense_nbytes if frame.dense else schema.max_nbytes)
    assert_same(lc.unpack(packed, expect=schema), message)
    with pytest.raises(ValueError, match="methods"):
        lc.pack(message, expect=replace(schema, choosing=not schema.choosing))
    with pytest.raises(WireError, match="method"):
        lc.unpack(packed, expect=replace(schema, choosing=not schema.choosing))


def test_a_decoded_message_is_added_without_a_dense_tensor():
    """What add_to allocates does not grow with d."""
    message = lc.unpack(lc.pack(lc.TopK(10).compress(torch.randn(1_000_000))))
    out = torch.zeros(1_000_000)
    with torch.profiler.profile(profile_memory=True) as profile:
        message.add_to(out, weight=0.5)
    largest = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert largest < 10_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_messages_travel_from_and_to_a_gpu():
    message = (lc.TopK(0.1) >> lc.BlockQuantizer(4)).compress(torch.randn(1000, device="cuda"))
    packed = lc.pack(message)
    assert packed.device.type == "cuda"
    assert_same(lc.unpack(packed), message)
