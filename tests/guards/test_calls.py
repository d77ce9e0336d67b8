"""The Python work of a step grows with groups and ranks, not with parameters; and which kernels run."""

import pytest
import torch
from counting import counting

import laconic
from laconic.comm._warm import warm_up
from laconic.kernels import kernel_counts, set_threads

SEGMENTS = (12, 150, 640)
METHODS = {
    "ef21-bf16": laconic.EF21(laconic.TopK(0.01) >> laconic.Cast(torch.bfloat16)),
    "ef21-topk": laconic.EF21(laconic.TopK(0.01)),
    "ef21-natural": laconic.EF21(laconic.BiasedRounding(2.0)),
    "ef14-1bit": laconic.EF14(laconic.TopK(0.01) >> laconic.ScaledSign()),
    "ef21+": laconic.EF21Plus(laconic.TopK(0.01)),
    "ef14-randk": laconic.EF14(laconic.RandK(0.01, unbiased=False)),
    "ef14-random": laconic.EF14(laconic.RandomSparsification(0.05)),
    "ef14-4bit": laconic.EF14(laconic.BlockTopK(8, 256) >> laconic.BlockQuantizer(4)),
}
# Calls and operations of a step: so many at once, and so many for each group and rank.
CALLS, CALLS_EACH = 200, 320
OPERATIONS, OPERATIONS_EACH = 60, 90


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that earlier tests have started are not counted, and any may take a share of the work."""
    set_threads(1)
    yield
    set_threads(None)


def layout_of(segments):
    """Two thirds matrices, one third short vectors that travel in bfloat16."""
    shapes, exempt = {}, []
    for i in range(segments):
        shapes[f"s{i}"] = (64,) if i % 3 == 2 else (40, 30)
        if i % 3 == 2:
            exempt.append(f"s{i}")
    return laconic.Layout.of(shapes, bfloat16=exempt)


def tensors_of(layout, seed):
    generator = torch.Generator().manual_seed(seed)
    return {s.name: torch.randn(s.shape, generator=generator) for s in layout.segments}


def groups_of(method):
    """Compressed and exempt; EF21+ compresses both twice."""
    return 2 * (1 + method.replace_flags)


def require_few(counter, groups, ranks):
    calls, operations = counter.calls.total(), counter.operations.total()
    assert calls <= CALLS + CALLS_EACH * groups * ranks, counter.calls.most_common()
    assert operations <= OPERATIONS + OPERATIONS_EACH * groups * ranks, counter.operations.most_common()
    return calls, operations


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_exchange_makes_as_many_calls_for_many_segments_as_for_few(method):
    found = []
    for segments in SEGMENTS:
        layout = layout_of(segments)
        with counting() as counter:
            exchange = laconic.Exchange(layout, method)
            for step in range(3):
                tensors = tensors_of(layout, step)
                with counter.on():
                    assert exchange.reduce_(tensors)
            exchange.close()
        # One call a segment is left: reduce_ looks at each tensor's shape.
        found.append(require_few(counter, groups=groups_of(method), ranks=1))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_round_of_eight_nodes_makes_as_many_calls_for_many_segments_as_for_few(method):
    warm_up(layout_of(12), method)  # loading compiled loops makes calls, too
    nodes, found = 8, []
    for segments in SEGMENTS:
        layout = layout_of(segments)
        senders = [method.sender(layout, node=i) for i in range(nodes)]
        receiver, out = method.receiver(layout, nodes), list(tensors_of(layout, 0).values())
        for round in range(3):
            expected = method.format(layout, torch.float32, round)
            gradients = [list(tensors_of(layout, 10 * round + i).values()) for i in range(nodes)]
            frames = [torch.empty(expected.max_nbytes, dtype=torch.uint8) for _ in range(nodes)]
            with counting() as counter, counter.on():
                sizes = [
                    laconic.wire.pack_into(sender.stage(gradient), frame, expect=expected)
                    for sender, gradient, frame in zip(senders, gradients, frames, strict=True)
                ]
                received = [frame[:size] for frame, size in zip(frames, sizes, strict=True)]
                messages = [laconic.unpack(frame, expect=expected) for frame in received]
                receiver.stage(messages, out=out)
                for sender in senders:
                    sender.commit()
                receiver.commit()
        found.append(require_few(counter, groups=groups_of(method), ranks=nodes))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ef21-bf16", {"cpu:selection", "cpu:casting", "cpu:receive"}),
        ("ef21-topk", {"cpu:selection", "cpu:casting", "cpu:receive"}),
        ("ef21-natural", {"cpu:rounding", "cpu:casting", "cpu:receive"}),
        ("ef14-1bit", {"cpu:selection", "cpu:signs", "cpu:sums", "cpu:receive"}),
        ("ef14-randk", {"cpu:draws", "cpu:rows", "cpu:receive"}),
        ("ef14-random", {"cpu:draws", "cpu:rows", "cpu:receive"}),
        ("ef14-4bit", {"cpu:selection", "cpu:blocks", "cpu:receive"}),
    ],
)
def test_the_compiled_loops_are_those_that_run(name, expected):
    layout = layout_of(12)
    exchange = laconic.Exchange(layout, METHODS[name])
    before = kernel_counts()
    for step in range(3):
        assert exchange.reduce_(tensors_of(layout, step))
    exchange.close()
    ran = {key for key, count in kernel_counts().items() if count > before.get(key, 0)}
    assert expected <= ran
    assert not any(key.startswith("reference:") for key in ran), ran
