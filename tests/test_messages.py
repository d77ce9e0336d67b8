"""Messages: decoding, adding in order, taking batches apart, choosing, and their sizes."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo import ALL_COMPRESSORS

import laconic as lc
from laconic.formats.grids import GeometricGrid, Signs, UniformLevels
from laconic.kernels import Stream, segmented
from laconic.messages import Message, Part, accumulation_dtype, add_nodes_, choose, spread


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sent(compressor, *shape, seed=0, dtype=torch.float32):
    """A message of each node of a batch of Gaussian vectors."""
    x = gaussian(*shape, seed=seed, dtype=dtype)
    nodes = torch.arange(math.prod(shape[:-1])).reshape(shape[:-1])
    return compressor.compress(x, Stream(seed=seed, node=nodes))


def two_parts(compressor, rows, seed=0):
    return Message(
        sent(compressor, rows, 12, seed=seed).parts + sent(compressor, rows, 8, seed=seed + 100).parts
    )


def groups_of(message):
    """The groups of each node of a batch."""
    return [node.groups for node in message.unbind()]


def test_accumulation_dtypes():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert accumulation_dtype(dtype) == torch.float32
    assert accumulation_dtype(torch.float64) == torch.float64
    for dtype in (torch.int32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match="float16, bfloat16, float32 and float64"):
            accumulation_dtype(dtype)


def test_decoding_codes():
    """sign(code) * fl(level * scale), then the factor."""
    part = Part(
        d=4,
        values=torch.tensor([0, 2, -3, 1], dtype=torch.int32),
        dtype=torch.float32,
        grid=UniformLevels(3),
        scale=torch.tensor([0.7]),
        factor=1.5,
    )
    third = torch.arange(4) / torch.tensor(3.0)
    expected = torch.tensor([1.0, 1.0, -1.0, 1.0]) * (third[[0, 2, 3, 1]] * torch.tensor(0.7)) * 1.5
    assert torch.equal(Message((part,)).dense(), expected)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_codes_are_of_the_narrowest_dtype_everywhere(compressor, dtype, monkeypatch):
    found = []
    for long in (1, 2**62):
        monkeypatch.setattr(segmented, "_LONG", long)
        found.append(sent(compressor, 300, dtype=dtype))
    found.append(lc.unpack(lc.pack(found[0])))
    for (part,) in (message.parts for message in found):
        if part.grid is not None:
            levels = len(part.grid.levels(part.dtype))
            wide = [t for t in (torch.int8, torch.int16, torch.int32) if torch.iinfo(t).max >= levels]
            assert part.values.dtype == wide[0]
        assert part.values.dtype == found[0].parts[0].values.dtype
        assert torch.equal(part.values, found[0].parts[0].values)


@pytest.mark.parametrize(
    ("compressor", "levels"),
    [
        (lc.BiasedRounding(4.512729), 127),
        (lc.BiasedRounding(4.498812), 128),
        (lc.BiasedRounding(1.005748935), 32767),
        (lc.BiasedRounding(1.005748655), 32768),
        (lc.RandomDithering(127, math.inf), 127),
        (lc.RandomDithering(128, math.inf), 128),
        (lc.RandomDithering(32767, math.inf), 32767),
        (lc.RandomDithering(32768, math.inf), 32768),
        (lc.BlockQuantizer(7), 64),
        (lc.BlockQuantizer(8), 128),
    ],
    ids=repr,
)
@pytest.mark.parametrize("long", [1, 2**62], ids=["compiled", "plain"])
def test_the_extreme_codes_of_a_width_are_exact(compressor, levels, long, monkeypatch):
    """Of the highest levels and of 0 with both signs, in the row that has the most levels."""
    monkeypatch.setattr(segmented, "_LONG", long)
    grid = compressor.structure(1, torch.float32).kind.grid
    table = grid.levels(torch.float32)
    assert len(table) == levels
    some = torch.cat((table[-20:], table[-20:].flip(0), table[:1] * 0))
    x = torch.cat((some, -some))
    message = compressor.compress(x, Stream(seed=3))
    codes = message.parts[0].values
    assert int(codes.max()) == -int(codes.min()) == levels
    unpacked = lc.unpack(lc.pack(message))
    assert torch.equal(unpacked.parts[0].values, codes)
    assert unpacked.parts[0].values.dtype == codes.dtype
    for one in (message, unpacked):
        assert torch.equal(one.dense(), x)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_codes_of_one_s_own_may_be_of_any_integer_dtype(dtype):
    codes, scale = torch.tensor([0, 3, -3, 1, 2], dtype=dtype), torch.tensor([0.5])
    part = Part(5, codes, torch.float32, grid=UniformLevels(3), scale=scale)
    signs = Part(2, codes[3:4].repeat(2), torch.float32, grid=Signs())
    powers = Part(3, codes[:3] * 40, torch.float32, grid=GeometricGrid((1.0, 2.0)))
    message = Message((part, signs, powers))
    found = lc.unpack(lc.pack(message))
    assert torch.equal(found.dense(), message.dense())
    for one, other in zip(found.parts, message.parts, strict=True):
        assert one.values.tolist() == other.values.tolist()
    assert [one.values.dtype for one in found.parts] == [torch.int8, torch.int8, torch.int16]


def test_positions_may_vary_in_number():
    part = Part(
        d=5,
        values=torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]),
        dtype=torch.float32,
        positions=torch.tensor([[0, 4, 5], [2, 5, 5]]),
        count=torch.tensor([[2], [1]]),
    )
    assert Message((part,)).dense().tolist() == [[1.0, 0, 0, 0, 2.0], [0, 0, 3.0, 0, 0]]


def test_several_parts_lie_side_by_side():
    first = lc.TopK(1).compress(torch.tensor([1.0, -5.0])).parts
    second = lc.Identity().compress(torch.tensor([7.0, 8.0, 9.0], dtype=torch.float64)).parts
    both = Message(first + second)
    assert both.d == 5
    assert both.dtype == torch.float64
    assert both.dense().tolist() == [0.0, -5.0, 7.0, 8.0, 9.0]
    out = torch.ones(5, dtype=torch.float64)
    both.add_to(out, weight=2.0)
    assert out.tolist() == [1.0, -9.0, 15.0, 17.0, 19.0]


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_add_to_multiplies_then_adds(compressor, dtype):
    message = sent(compressor, 3, 20, dtype=dtype)
    dense = message.dense()
    for out_dtype in (message.dtype, torch.float64):
        for weight in (1.0, -1.0, 1 / 3, torch.tensor([[0.1], [0.2], [0.3]], dtype=out_dtype)):
            out = gaussian(3, 20, seed=1, dtype=out_dtype)
            expected = out + dense.to(out_dtype) * weight
            message.add_to(out, weight)
            assert torch.equal(out, expected)


def test_add_to_writes_into_a_slice():
    whole = torch.zeros(2, 9)
    for compressor in (lc.TopK(2), lc.RandomSparsification(0.5), lc.Identity()):
        message = sent(compressor, 2, 4)
        whole.zero_()
        message.add_to(whole[:, 3:7])
        assert torch.equal(whole[:, 3:7], message.dense())
        assert not whole[:, :3].any()
        assert not whole[:, 7:].any()


def test_add_to_refuses_other_shapes_and_narrower_dtypes():
    message = sent(lc.TopK(2), 3, 5)
    for shape in ((5,), (3, 4), (3, 6), (2, 5), (1, 3, 5)):
        with pytest.raises(ValueError, match=r"decodes to shape \(3, 5\), but out has shape"):
            message.add_to(torch.zeros(shape))
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(TypeError, match="would round them"):
            message.add_to(torch.zeros(3, 5, dtype=dtype))
    wide = sent(lc.TopK(2), 3, 5, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"adding torch\.float64 numbers to a torch\.float32 tensor"):
        wide.add_to(torch.zeros(3, 5))


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_unbind_takes_the_last_leading_dimension_apart(compressor):
    message = sent(compressor, 2, 3, 14)
    dense = message.dense()
    nodes = message.unbind()
    assert len(nodes) == 3
    for j, node in enumerate(nodes):
        assert node.batch == (2,)
        assert torch.equal(node.dense(), dense[:, j])
        for i, single in enumerate(node.unbind()):
            assert single.batch == ()
            assert torch.equal(single.dense(), dense[i, j])
            assert single.nbytes == int(message.bits("wire")[i, j]) // 8
            for accounting in ("values", "entropy"):
                assert int(single.bits(accounting)) == int(message.bits(accounting)[i, j])
    with pytest.raises(ValueError, match="one node's message already"):
        nodes[0].unbind()[0].unbind()


def test_unbind_takes_flags_apart():
    flags = torch.tensor([[True, False], [False, False], [True, True]])
    message = replace(two_parts(lc.TopK(2), 3), replaces=flags, round=9, digest=4)
    singles = message.unbind()
    assert [single.replaces.tolist() for single in singles] == flags.tolist()
    assert all((single.round, single.digest) == (9, 4) for single in singles)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_choose_takes_parts_of_rows(compressor):
    first, second = (two_parts(compressor, 4, seed=seed) for seed in (1, 2))
    condition = torch.tensor([[True, True], [False, False], [False, True], [True, False]])
    chosen = choose(condition, first, second)
    wide = spread(condition, first)
    assert wide.shape == (4, 20)
    assert torch.equal(wide, torch.cat((condition[:, :1].expand(4, 12), condition[:, 1:].expand(4, 8)), -1))
    assert torch.equal(chosen.dense(), torch.where(wide, first.dense(), second.dense()))


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_add_nodes_is_the_ordered_loop(compressor, batch):
    message = sent(compressor, *batch, 7, 15)
    weights = torch.linspace(0.1, 0.9, 7).tolist()
    start = gaussian(*batch, 15, seed=3)
    expected = start.clone()
    for weight, node in zip(weights, message.unbind(), strict=True):
        expected = expected + node.dense() * weight
    together, apart = start.clone(), start.clone()
    add_nodes_(together, groups_of(message), weights)
    for weight, node in zip(weights, message.unbind(), strict=True):
        node.add_to(apart, weight)
    assert torch.equal(together, expected)
    assert torch.equal(apart, expected)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_add_nodes_of_many_segments_is_the_ordered_loop(compressor):
    message = two_parts(compressor, 5)
    weights = torch.linspace(-0.4, 0.9, 5).tolist()
    expected = gaussian(20, seed=3)
    together = expected.clone()
    for weight, node in zip(weights, message.unbind(), strict=True):
        expected = expected + node.dense() * weight
    add_nodes_(together, groups_of(message), weights)
    assert torch.equal(together, expected)


@pytest.mark.parametrize("compressor", [lc.Identity(), lc.TopK(2)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_add_nodes_needs_a_weight_for_each_node(compressor, batch):
    message = sent(compressor, *batch, 3, 5)
    with pytest.raises(ValueError, match=r"zip|weight"):
        add_nodes_(torch.zeros(*batch, 5), groups_of(message), [1.0, 2.0])


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 12))
def test_add_nodes_on_colliding_positions(seed, nodes, d):
    message = sent(lc.TopK(max(1, d // 2)), nodes, d, seed=seed)
    weights = gaussian(nodes, seed=seed + 1).tolist()
    expected = torch.zeros(d)
    for weight, node in zip(weights, message.unbind(), strict=True):
        expected = expected + node.dense() * weight
    out = torch.zeros(d)
    add_nodes_(out, groups_of(message), weights)
    assert torch.equal(out, expected)


@pytest.mark.parametrize(("d", "k"), [(10, 3), (1000, 10), (1000, 1000), (68, 1)])
def test_sizes_of_top_k(d, k):
    """The papers' 32 k, and 32 k + log2 C(d, k)."""
    message = sent(lc.TopK(k), d)
    assert int(message.bits("values")) == 32 * k
    assert int(message.bits("entropy")) == 32 * k + math.ceil(math.log2(math.comb(d, k)))
    double = sent(lc.TopK(k), d, dtype=torch.float64)
    assert int(double.bits("values")) == 32 * k
    assert double.nbytes >= message.nbytes + 4 * k


def test_sizes_of_others():
    d = 100
    assert int(sent(lc.Identity(), d).bits("entropy")) == 32 * d
    assert int(sent(lc.RandK(10), d).bits("entropy")) == 320, "positions follow from the seed"
    assert int(sent(lc.ScaledSign(), d).bits("values")) == d + 32
    assert int(sent(lc.Ternary(), d).bits("values")) == math.ceil(d * math.log2(3)) + 32
    assert int(sent(lc.RandomDithering(7), d).bits("values")) == math.ceil(d * math.log2(15)) + 32
    natural = sent(lc.NaturalCompression(), d)
    assert int(natural.bits("values")) == math.ceil(d * math.log2(511))
    assert natural.nbytes - sent(lc.NaturalCompression(), d - 80).nbytes == 80 * 9 // 8
    both = sent(lc.TopK(10) >> lc.NaturalCompression(), d)
    positions = math.ceil(math.log2(math.comb(d, 10)))
    assert 0 <= int(both.bits("entropy")) - math.ceil(10 * math.log2(511)) - positions <= 16
    flagged = replace(both, replaces=torch.tensor([True]))
    assert int(flagged.bits("entropy")) == int(both.bits("entropy")) + 1
    varying = sent(lc.RandomSparsification(0.5), 6, d)
    kept = varying.parts[0].count[:, 0]
    assert torch.equal(varying.bits("values"), 32 * kept)
    assert torch.equal(varying.bits("entropy"), 32 * kept + math.ceil(math.log2(d + 1)))


def test_an_unknown_accounting_is_refused():
    with pytest.raises(ValueError, match="unknown accounting 'bits'; use 'wire', 'values' or 'entropy'"):
        sent(lc.Identity(), 3).bits("bits")


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_nbytes_is_what_pack_makes(compressor):
    message = sent(compressor, 3, 40)
    assert message.nbytes == sum(len(lc.pack(single)) for single in message.unbind())
    assert message.bits("wire").shape == (3,)
    assert message.bits("wire").dtype == message.bits("values").dtype == torch.int64


def test_scaling_a_message_multiplies_its_factor():
    message = sent(lc.RandK(2), 8)
    assert message.scaled(0.25).parts[0].factor == 1.0
    assert torch.equal(message.scaled(0.25).dense(), message.dense() / 4)
    grid = GeometricGrid((1.0, 2.0))
    assert sent(lc.NaturalCompression(), 8).scaled(3.0).parts[0].grid == grid


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_adding_is_that_of_plain_pytorch(compressor, dtype):
    """The compiled loops that take a single vector, and each group's own ``add_to``."""
    message = two_parts(compressor, 1).unbind()[0]
    if dtype == torch.float64:
        x = gaussian(75, dtype=dtype)
        message = compressor.compress(x, torch.Generator().manual_seed(1))
    for weight in (1.0, 0.3, -1.0):
        compiled, plain = (torch.linspace(1, 2, message.d, dtype=message.dtype) for _ in range(2))
        message.add_to(compiled, weight)
        for group in message.groups:
            group.add_to(plain, weight)
        assert torch.equal(compiled, plain)
