"""Columns: a message of many segments holds the same bits, however these are batched, bucketed and given."""

import pytest
import torch
from courses import same_bits, some_gradients
from zoo import ALL_COMPRESSORS

import laconic

NUMELS = (3, 40, 5, 17, 3, 64, 9, 130, 33, 8, 21, 12)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
NODES, ROUNDS = 2, 3


def layout_of(segments):
    """Segments of which one travels in bfloat16 and one exactly."""
    shapes = {f"s{i}": (n,) for i, n in enumerate(NUMELS[-segments:])}
    return laconic.Layout.of(shapes, bfloat16={"s2"} & set(shapes), exact={"s4"} & set(shapes))


def method_of(compressor, layout):
    """EF21 where the compressor contracts on every segment, else DCGD."""
    lengths = {s.numel for s in layout.segments if s.rule == "compress"}
    contracts = all(compressor.constants(d).contraction is not None for d in lengths)
    return laconic.EF21(compressor, init="compressed") if contracts else laconic.DCGD(compressor)


def run(method, layout, gradients, buckets, tensors):
    """The estimate of every round, (rounds, d), and the nodes' memories at the end, by segment."""
    where = {segment.name: segment for segment in layout.segments}
    estimates = torch.empty(len(gradients), layout.d, dtype=torch.float32)
    if gradients.dtype == torch.float64:
        estimates = estimates.double()
    memories = {}
    for names in buckets:
        part = layout.select(names)
        senders = [method.sender(part, node=i, seed=5) for i in range(NODES)]
        receiver = method.receiver(part, NODES, dtype=gradients.dtype)
        for t, g in enumerate(gradients):
            given = [[g[i, where[n].offset : where[n].end].clone() for n in names] for i in range(NODES)]
            sent = [s.send(x if tensors else torch.cat(x)) for s, x in zip(senders, given, strict=True)]
            estimate = receiver.receive(sent)
            for segment in part.segments:
                goal = where[segment.name]
                estimates[t, goal.offset : goal.end] = estimate[segment.offset : segment.end]
        for i, sender in enumerate(senders):
            for key, memory in sender.state_dict().items():
                if isinstance(memory, torch.Tensor):
                    memories |= {(s.name, i, key): memory[s.offset : s.end].clone() for s in part.segments}
    return estimates, memories


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("segments", [1, 12])
@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_bits_do_not_depend_on_buckets_nor_on_tensors_given_apart(compressor, segments, dtype):
    layout = layout_of(segments)
    method = method_of(compressor, layout)
    names = [segment.name for segment in layout.segments]
    gradients = some_gradients(ROUNDS, NODES, layout.d, dtype=dtype)
    expected, memories = run(method, layout, gradients, [names], tensors=False)
    splits = [[names]] if segments == 1 else [[names], [names[5:], names[:5]], [names[::-1]]]
    for buckets in splits:
        found, kept = run(method, layout, gradients, buckets, tensors=True)
        assert same_bits(found, expected)
        assert kept.keys() == memories.keys()
        assert all(same_bits(kept[key], memories[key]) for key in kept)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("segments", [1, 12])
@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_a_batch_of_nodes_and_runs_holds_the_messages_of_each(compressor, segments, batch):
    layout = layout_of(segments)
    method = method_of(compressor, layout)
    gradients = some_gradients(ROUNDS, *batch, layout.d)
    nodes = torch.arange(3) if batch else 0
    together = method.sender(layout, node=nodes, seed=5)
    apart = [method.sender(layout, node=i % 3, seed=5) for i in range(gradients[0].numel() // layout.d)]
    for g in gradients:
        message = together.send(g)
        alone = [sender.send(row) for sender, row in zip(apart, g.reshape(-1, layout.d), strict=True)]
        rows = message.dense().reshape(-1, layout.d)
        assert all(same_bits(row, one.dense()) for row, one in zip(rows, alone, strict=True))
        assert message.bits("wire").reshape(-1).tolist() == [int(one.bits("wire")) for one in alone]
        assert [part.d for part in message.parts] == [segment.numel for segment in layout.segments]


def test_parts_are_views_of_the_columns():
    layout = layout_of(12)
    message = laconic.EF14(laconic.TopK(2) >> laconic.ScaledSign()).sender(layout).send(torch.ones(layout.d))
    assert len(message.groups) == 3  # compressed, bfloat16, exact
    for segment, part in zip(layout.segments, message.parts, strict=True):
        assert part.d == segment.numel
    sparse = message.groups[0]
    assert message.parts[0].values.data_ptr() == sparse.values.data_ptr()
