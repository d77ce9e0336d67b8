"""Every compressor with every method: what holds for all of them."""

import io

import pytest
import reference
import torch
from courses import (
    ALL_PAIRS,
    KIND_PAIRS,
    NODES,
    ONLY_KINDS,
    ROUNDS,
    SEED,
    D,
    course,
    memory_of,
    of,
    same_bits,
    same_message,
    same_state,
    some_gradients,
    twin,
)
from econtrol import EControl
from zoo import ALL_COMPRESSORS

import laconic
from laconic.layout import Layout
from laconic.messages import Message

every_pair = pytest.mark.parametrize("method", ALL_PAIRS)
every_kind = pytest.mark.parametrize("method", KIND_PAIRS)
TRACKING = (laconic.EF21, laconic.EF21Plus, laconic.EF21SGDM, EControl)


# Deterministic, and too long to contract.
TOO_LONG = pytest.param(laconic.TopK(2).scaled(3.0), id="TopK(k=2) times 3")


@pytest.mark.parametrize("compressor", [*ALL_COMPRESSORS, TOO_LONG])
def test_a_method_refuses_exactly_what_would_break_it(compressor):
    contractive = compressor.constants(D).contraction is not None
    laconic.DCGD(compressor).sender(D)
    for make in (laconic.EF14, laconic.EF21, laconic.EF21SGDM):
        if contractive:
            make(compressor).sender(D)
        else:
            with pytest.raises(ValueError, match=r"\.contractive\(\)"):
                make(compressor).sender(D)
            make(compressor.contractive()).sender(D)
    if compressor.random:
        with pytest.raises(ValueError, match="is random"):
            laconic.EF21Plus(compressor.contractive()).sender(D)
    elif not contractive:
        with pytest.raises(ValueError, match=r"\.contractive\(\)"):
            laconic.EF21Plus(compressor).sender(D)
    else:
        laconic.EF21Plus(compressor).sender(D)


@pytest.mark.parametrize("method", [*ALL_PAIRS, *(p for p in KIND_PAIRS if p.id.startswith(ONLY_KINDS))])
def test_estimates_and_memories_are_the_papers(method):
    c = course(method)
    for t, (estimate, memories) in enumerate(twin(method, c.gradients)):
        assert same_bits(c.estimates[t], estimate)
        if memories is not None:
            assert all(map(same_bits, c.memories(t), memories))


@pytest.mark.parametrize("method", of(ALL_PAIRS, *TRACKING))
def test_the_receiver_holds_the_mean_of_what_the_senders_hold(method):
    c = course(method)
    G = torch.zeros(D)
    for t in range(ROUNDS):
        h = torch.stack(c.memories(t))
        largest = h.abs().amax().clamp(min=1)
        assert (c.estimates[t].double() - h.double().mean(0)).abs().max() <= 1e-6 * largest
        if isinstance(method, laconic.EF21Plus):
            assert same_bits(c.heard[t]["memories"], h)
            assert same_bits(c.estimates[t], reference.mean_of(list(h)))
        else:
            G = reference.add_mean(G, c.decoded[t])
            assert same_bits(c.heard[t]["memory"], G)
            assert same_bits(c.estimates[t], G)


@pytest.mark.parametrize("method", of(ALL_PAIRS, laconic.EF14))
def test_what_ef14_does_not_send_it_keeps(method):
    c = course(method)
    before = [torch.zeros(D)] * NODES
    for t in range(ROUNDS):
        for i in range(NODES):
            kept = (before[i] + c.gradients[t, i]) - c.decoded[t][i]
            assert same_bits(c.memories(t)[i], kept)
        before = c.memories(t)


@every_pair
def test_a_batch_of_nodes_is_as_many_senders(method):
    c = course(method)
    sender = method.sender(D, node=torch.arange(NODES), seed=SEED)
    receiver = method.receiver(D, NODES)
    for t, g in enumerate(c.gradients):
        message = sender.send(g)
        assert message.batch == (NODES,)
        assert all(map(same_message, message.unbind(), c.messages[t]))
        assert message.nbytes == sum(one.nbytes for one in c.messages[t])
        memory = memory_of(sender.state_dict())
        if memory is not None:
            assert same_bits(memory, torch.stack(c.memories(t)))
        assert same_bits(receiver.receive(message), c.estimates[t])
        assert same_state(receiver.state_dict(), c.heard[t])


@every_kind
def test_a_batch_of_runs_is_as_many_runs(method):
    c = course(method)
    other = some_gradients(ROUNDS, NODES, D, seed=2)
    seeds = torch.tensor([[SEED], [-5]])
    sender = method.sender(D, node=torch.arange(NODES), seed=seeds)
    receiver = method.receiver(D, NODES)
    alone, hears = method.sender(D, node=torch.arange(NODES), seed=-5), method.receiver(D, NODES)
    for t in range(ROUNDS):
        estimate = receiver.receive(sender.send(torch.stack((c.gradients[t], other[t]))))
        assert same_bits(estimate[0], c.estimates[t])
        assert same_bits(estimate[1], hears.receive(alone.send(other[t])))


@every_pair
def test_a_run_goes_on_from_a_state_dict_as_if_nothing_had_happened(method):
    c = course(method)
    senders = [method.sender(D, node=i, seed=SEED) for i in range(NODES)]
    receiver = method.receiver(D, NODES)
    for sender, state in zip(senders, c.states[0], strict=True):
        # What was recorded in mid-run must not have moved on with the sender it came from.
        sender.load_state_dict(through_a_file(state))
        assert sender.round == 1
        assert same_state(sender.state_dict(), state)
    receiver.load_state_dict(through_a_file(c.heard[0]))
    assert receiver.round == 1
    for t in range(1, ROUNDS):
        messages = [sender.send(c.gradients[t, i]) for i, sender in enumerate(senders)]
        assert all(map(same_message, messages, c.messages[t]))
        assert same_bits(receiver.receive(messages), c.estimates[t])
        assert all(same_state(s.state_dict(), r) for s, r in zip(senders, c.states[t], strict=True))
        assert same_state(receiver.state_dict(), c.heard[t])


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_kind
def test_a_gradient_that_is_not_finite_changes_nothing(method):
    c = course(method)
    sender = method.sender(D, node=0, seed=SEED)
    for t in range(ROUNDS):
        before = sender.state_dict()
        for bad in (float("nan"), float("inf"), -float("inf")):
            gradient = c.gradients[t, 0].clone()
            gradient[t] = bad
            with pytest.raises(ValueError, match="skip this step"):
                sender.send(gradient)
            assert same_state(sender.state_dict(), before)
        assert same_message(sender.send(c.gradients[t, 0]), c.messages[t][0])


@every_pair
def test_messages_share_no_memory_with_anything(method):
    c = course(method)
    # Nothing that happened in later rounds changed an earlier message...
    for t in range(ROUNDS):
        assert all(same_bits(m.dense(), d) for m, d in zip(c.messages[t], c.decoded[t], strict=True))
    # ... nor does the caller's gradient buffer, or what is done to a message change a memory.
    sender = method.sender(D, node=0, seed=SEED)
    buffer = torch.empty(D)
    for t in range(ROUNDS):
        buffer.copy_(c.gradients[t, 0])
        message = sender.send(buffer)
        buffer.fill_(float("nan"))
        assert same_message(message, c.messages[t][0])
        for group in message.groups:
            for name in ("values", "scale"):
                if (tensor := group.tensors().get(name)) is not None:
                    tensor.copy_(torch.full_like(tensor, 3))
        assert same_state(sender.state_dict(), c.states[t][0])


LAYOUT = Layout.of({"a": (4, 4), "b": (3,), "c": (D,)}, exact=["b"])


@every_kind
def test_segments_are_compressed_each_on_its_own(method):
    gradients = some_gradients(3, 2, LAYOUT.d, seed=3)
    senders = [method.sender(LAYOUT, node=i, seed=SEED) for i in range(2)]
    receiver = method.receiver(LAYOUT, 2)
    for t, (estimate, memories) in enumerate(twin(method, gradients, LAYOUT)):
        messages = [sender.send(gradients[t, i]) for i, sender in enumerate(senders)]
        assert all(message.digest == LAYOUT.digest_of(torch.float32) for message in messages)
        assert [part.d for part in messages[0].parts] == [D, 3, D]
        assert same_bits(receiver.receive(messages), estimate)
        if memories is not None:
            assert all(
                same_bits(memory_of(s.state_dict()), m) for s, m in zip(senders, memories, strict=True)
            )
        if isinstance(method, laconic.DCGD):
            # What is exact travels exactly.
            assert same_bits(messages[0].dense()[D : D + 3], gradients[t, 0, D : D + 3])


@every_kind
def test_nothing_depends_on_how_segments_are_grouped(method):
    gradients = some_gradients(3, 2, LAYOUT.d, seed=8)
    groups = [LAYOUT.select(names) for names in (["c", "b"], ["a"])]
    places = [torch.arange(D, LAYOUT.d).roll(-3), torch.arange(D)]
    whole = [method.sender(LAYOUT, node=i, seed=SEED) for i in range(2)]
    hears = method.receiver(LAYOUT, 2)
    parts = [[method.sender(group, node=i, seed=SEED) for i in range(2)] for group in groups]
    receivers = [method.receiver(group, 2) for group in groups]
    for g in gradients:
        estimate = hears.receive([sender.send(g[i]) for i, sender in enumerate(whole)])
        for senders, receiver, place in zip(parts, receivers, places, strict=True):
            messages = [sender.send(g[i][place]) for i, sender in enumerate(senders)]
            assert same_bits(receiver.receive(messages), estimate[place])


@every_kind
def test_names_and_shapes_do_not_change_a_number(method):
    other = Layout.of({"x": (D,), "y": (1, 3), "z": (2, D // 2)}, exact=["y"])
    one, two = method.sender(LAYOUT, node=1, seed=SEED), method.sender(other, node=1, seed=SEED)
    for gradient in some_gradients(2, LAYOUT.d, seed=4):
        a, b = one.send(gradient), two.send(gradient)
        assert same_message(a, Message(b.parts, b.replaces, b.round, a.digest))
        assert a.digest != b.digest


NARROWING = [param for param in KIND_PAIRS if "Cast" in param.id]
DTYPES = [
    pytest.param(*param.values, dtype, id=f"{dtype}-{param.id}")
    for dtype in (torch.float16, torch.bfloat16, torch.float64)
    for param in KIND_PAIRS
    if not (dtype == torch.float64 and param in NARROWING)
]


@pytest.mark.parametrize(("method", "dtype"), DTYPES)
def test_gradients_of_every_dtype(method, dtype):
    accumulated = torch.float64 if dtype == torch.float64 else torch.float32
    gradients = some_gradients(2, 2, D, seed=5, dtype=dtype)
    sender, receiver = method.sender(D, node=torch.arange(2), seed=SEED), method.receiver(D, 2)
    for t, (estimate, memories) in enumerate(twin(method, gradients.to(accumulated))):
        got = receiver.receive(sender.send(gradients[t]))
        assert got.dtype == accumulated
        assert same_bits(got, estimate)
        if memories is not None:
            assert same_bits(memory_of(sender.state_dict()), torch.stack(list(memories)))


@pytest.mark.parametrize("method", of(NARROWING, *TRACKING))
def test_both_ends_agree_where_the_compressor_narrows_float64(method):
    gradients = some_gradients(6, 2, D, seed=6, dtype=torch.float64)
    sender, receiver = (
        method.sender(D, node=torch.arange(2), seed=SEED),
        method.receiver(D, 2, dtype=torch.float64),
    )
    for g in gradients:
        estimate = receiver.receive(sender.send(g))
        h = memory_of(sender.state_dict())
        assert memory_of(receiver.state_dict()).dtype == h.dtype
        # Two equal weights of 1/2 are exact, and the sums of few bfloat16 numbers nearly so.
        tolerance = 8 * torch.finfo(h.dtype).eps
        assert (estimate - h.mean(0)).abs().max() <= tolerance * h.abs().amax()
