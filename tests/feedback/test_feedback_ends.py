"""Senders and receivers one by one: how they start, what they refuse, and that a refusal changes nothing."""

import dataclasses

import pytest
import torch
from courses import (
    KIND_PAIRS,
    METHODS,
    SEED,
    D,
    memory_of,
    of,
    same_bits,
    same_message,
    same_state,
    some_gradients,
)

import laconic
from laconic.feedback._receivers import LinearReceiver
from laconic.layout import Layout

every_kind = pytest.mark.parametrize("method", KIND_PAIRS)
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
TOP = laconic.TopK(2)


def rounds_of(method, layout=D, nodes=2, rounds=3):
    """A receiver, and the messages of some rounds for it: lists of one a node."""
    length = Layout.like(layout).d
    senders = [method.sender(layout, node=i, seed=SEED) for i in range(nodes)]
    gradients = some_gradients(rounds, nodes, length, seed=11)
    messages = [[s.send(g) for s, g in zip(senders, row, strict=True)] for row in gradients]
    return method.receiver(layout, nodes), messages


# How they start


def test_init_gradient_sends_everything_once():
    method = laconic.EF21(TOP)
    sender, g = method.sender(D), some_gradients(2, D)
    assert method.plan(0).dense
    assert not method.plan(1).dense
    first, second = sender.send(g[0]), sender.send(g[1])
    assert same_bits(first.dense(), g[0])
    assert first.parts[0].positions is None
    assert second.parts[0].k == 2


@pytest.mark.parametrize("make", [laconic.EF21, laconic.EF21Plus, laconic.EF21SGDM])
def test_init_zero_says_nothing_in_the_first_round(make):
    method = make(TOP, init="zero")
    layout = Layout.of({"a": (10**6,), "b": (3,)}, exact=["b"])
    sender, receiver = method.sender(layout), method.receiver(layout, 1)
    assert not method.plan(0).dense
    gradient = torch.full((layout.d,), 5.0)
    message = sender.send(gradient)
    assert message.nbytes <= 128
    assert int(message.bits("values")) == 0
    assert receiver.receive([message]).count_nonzero() == 0
    assert memory_of(sender.state_dict()).count_nonzero() == 0
    # The exact segment arrives whole as soon as anything is sent.
    assert torch.equal(receiver.receive([sender.send(gradient)])[-3:], gradient[-3:])


def test_init_compressed_starts_from_what_was_sent():
    method = laconic.EF21(TOP, init="compressed")
    sender, g = method.sender(D), some_gradients(1, D)[0]
    message = sender.send(g)
    assert not method.plan(0).dense
    assert same_bits(message.dense(), TOP.compress(g).dense())
    assert same_bits(memory_of(sender.state_dict()), message.dense())


@pytest.mark.parametrize("make", [laconic.EF21, laconic.EF21Plus, laconic.EF21SGDM])
def test_an_unknown_init_is_refused(make):
    with pytest.raises(ValueError, match="'gradient', 'bfloat16', 'compressed', 'zero'"):
        make(TOP, init="dense")


@pytest.mark.parametrize("eta", [0.0, -0.1, 1.5, float("nan")])
def test_eta_is_a_weight(eta):
    with pytest.raises(ValueError, match="weight of the new gradient"):
        laconic.EF21SGDM(TOP, eta=eta)


def test_eta_1_is_ef21():
    g = some_gradients(4, D)
    one, two = laconic.EF21SGDM(TOP, eta=1.0).sender(D), laconic.EF21(TOP).sender(D)
    assert all(same_message(one.send(x), two.send(x)) for x in g)


@every_method
def test_a_method_is_what_the_protocol_says(make):
    method = make(TOP)
    assert isinstance(method, laconic.feedback.Feedback)
    assert isinstance(method.sender(D), laconic.feedback.Sender)
    assert isinstance(method.receiver(D, 2), laconic.feedback.Receiver)
    assert method == make(TOP)
    assert hash(method) == hash(make(TOP))
    assert method.estimates == ("step" if method.name == "ef14" else "gradient")
    with pytest.raises(ValueError, match="at least one node"):
        method.receiver(D, 0)


@every_method
def test_settings_that_do_not_fit_are_refused_before_anything_is_sent(make):
    layout = Layout.of({"a": (5,), "b": (3,)})
    with pytest.raises(ValueError, match="k = 4 of 3"):
        make(laconic.TopK(4)).sender(layout)
    # What is exact need not fit the compressor.
    make(laconic.TopK(4)).sender(Layout.of({"a": (5,), "b": (3,)}, exact=["b"]))


# What senders refuse


@every_method
def test_gradients_that_do_not_fit_are_refused(make):
    sender = make(TOP).sender(D)
    with pytest.raises(ValueError, match="16 elements"):
        sender.send(torch.zeros(D + 1))
    with pytest.raises(ValueError, match="16 elements"):
        sender.send(torch.tensor(1.0))
    with pytest.raises(TypeError, match="float16"):
        sender.send(torch.zeros(D, dtype=torch.int64))
    assert sender.round == 0
    sender.send(some_gradients(D))
    before = sender.state_dict()
    if memory_of(before) is not None:
        with pytest.raises(ValueError, match="another batch"):
            sender.send(torch.zeros(3, D))
        assert same_state(sender.state_dict(), before)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dcgd"])
def test_what_overflows_together_with_the_memory_is_refused(name):
    # All numbers are finite, but neither 2e38 + 2e38 nor 2e38 - (-2e38) is a float32 number.
    method = METHODS[name](laconic.TopK(1))
    if name.startswith("ef21-sgdm"):
        method = dataclasses.replace(method, eta=1.0)
    sender = method.sender(2)
    huge = torch.tensor([3e38, 2e38])
    sender.send(huge)
    if not name.startswith("ef14"):
        sender.send(huge)
    before = sender.state_dict()
    with pytest.raises(ValueError, match="skip this step"):
        sender.send(huge if name.startswith("ef14") else -huge)
    assert same_state(sender.state_dict(), before)


@pytest.mark.parametrize("stepsize", [float("nan"), float("inf"), torch.tensor([[0.1], [float("nan")]])])
def test_a_stepsize_that_is_not_finite_is_refused(stepsize):
    sender = laconic.EF14(TOP).sender(D, node=torch.arange(2))
    gradients = some_gradients(2, 2, D)
    sender.send(gradients[0], stepsize=0.1)
    before = sender.state_dict()
    with pytest.raises(ValueError, match="skip this step"):
        sender.send(gradients[1], stepsize=stepsize)
    assert same_state(sender.state_dict(), before)


def test_a_stepsize_neither_widens_nor_reshapes_the_memory():
    gradient = some_gradients(2, D)
    sender = laconic.EF14(TOP).sender(D, node=torch.arange(2))
    # A float64 schedule on float32 gradients.
    message = sender.send(gradient, stepsize=torch.tensor([[0.5], [0.25]], dtype=torch.float64))
    assert message.dtype == memory_of(sender.state_dict()).dtype == torch.float32
    alone = [laconic.EF14(TOP).sender(D, node=i) for i in range(2)]
    assert same_message(message.unbind()[1], alone[1].send(gradient[1], stepsize=0.25))
    with pytest.raises(ValueError, match="broadcast"):
        laconic.EF14(TOP).sender(D).send(gradient[0], stepsize=torch.ones(3, 1))


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("ef14")])
def test_only_ef14_takes_the_stepsize_inside(name):
    one, two = METHODS[name](TOP).sender(D), METHODS[name](TOP).sender(D)
    for gradient in some_gradients(3, D):
        assert same_message(one.send(gradient), two.send(gradient, stepsize=0.1))


@every_method
def test_a_graph_does_not_hang_on_messages_or_memories(make):
    sender, receiver = make(TOP).sender(D), make(TOP).receiver(D, 1)
    for g in some_gradients(3, D):
        estimate = receiver.receive([sender.send(g.requires_grad_())])
        assert not estimate.requires_grad
    memory = memory_of(sender.state_dict())
    assert memory is None or not memory.requires_grad


@pytest.mark.parametrize("make", [make for name, make in METHODS.items() if name != "dcgd"])
def test_a_memory_keeps_its_dtype(make):
    # A float64 gradient after float32 ones is rounded; both ends keep what they have.
    sender, receiver = make(TOP).sender(D), make(TOP).receiver(D, 1)
    receiver.receive([sender.send(some_gradients(D))])
    wide = some_gradients(D, seed=9, dtype=torch.float64)
    assert receiver.receive([sender.send(wide)]).dtype == torch.float32
    assert memory_of(sender.state_dict()).dtype == make(TOP).memory_dtype


# What receivers refuse


def refused(receiver, messages, match, **kwargs):
    """Receiving these messages raises, and changes nothing."""
    before = receiver.state_dict()
    with pytest.raises(ValueError, match=match):
        receiver.receive(messages, **kwargs)
    assert same_state(receiver.state_dict(), before)
    assert receiver.round == before["round"]


@every_method
def test_messages_that_do_not_fit_are_refused(make):
    receiver, messages = rounds_of(make(TOP))
    refused(receiver, messages[0][:1], "each of 2 nodes, but got 1")
    refused(receiver, [*messages[0], messages[0][0]], "each of 2 nodes, but got 3")
    refused(receiver, [], "each of 2 nodes, but got 0")
    refused(receiver, messages[0][0], "one node's message alone")
    receiver.receive(messages[0])
    refused(receiver, messages[0], "is of round 0, but the receiver is at round 1")
    refused(receiver, messages[2], "is of round 2, but the receiver is at round 1")
    refused(receiver, [messages[1][0], messages[2][1]], "the message of node 1 is of round 2")
    # The same length, but other names.
    _, foreign = rounds_of(make(TOP), Layout.of({"a": (D,)}))
    refused(receiver, [messages[1][0], foreign[1][1]], "node 1 belongs to another layout")
    _, longer = rounds_of(make(TOP), D + 1)
    refused(receiver, longer[1], "node 0 belongs to another layout")
    receiver.receive(messages[1])
    receiver.receive(messages[2])


@every_method
def test_messages_of_another_batch_or_dtype_are_refused(make):
    method = make(TOP)

    def sent(*shape, dtype=torch.float32):
        sender = method.sender(D, node=torch.arange(2))
        return [sender.send(some_gradients(*shape, seed=t, dtype=dtype)) for t in range(2)]

    receiver, three = method.receiver(D, 2), sent(3, 2, D)
    refused(receiver, [three[0].unbind()[0], sent(2, D)[0].unbind()[1]], "the message of node 1 has leading")
    mixed = [three[0].unbind()[0], sent(3, 2, D, dtype=torch.float64)[0].unbind()[1]]
    refused(receiver, mixed, "node 1 has .*float64 numbers, but that of node 0 .*float32")
    receiver.receive(three[0])
    if memory_of(receiver.state_dict()) is None:
        return
    # Two runs would fit into the first two of three without an error from PyTorch.
    refused(receiver, sent(2, 2, D)[1], "another batch of runs")
    refused(receiver, sent(3, 2, D, dtype=torch.float64)[1], "another dtype")
    receiver.receive(three[1])


def test_ef21_plus_needs_itself_at_both_ends():
    plus, (said, *_) = rounds_of(laconic.EF21Plus(TOP))
    plain, (unsaid, *_) = rounds_of(laconic.EF21(TOP))
    refused(plus, unsaid, "no flags for replacing")
    refused(plain, said, "flags for replacing a memory, as EF21\\+ sends them, but this receiver only adds")


@every_kind
def test_out_is_where_the_estimate_goes(method):
    receiver, messages = rounds_of(method)
    twin, _ = rounds_of(method)
    for batch in messages:
        out = torch.full((D,), float("nan"))
        refused(receiver, batch, "out has shape", out=torch.zeros(3, D))
        refused(receiver, batch, "out has shape", out=torch.zeros(D + 1))
        assert receiver.receive(batch, out=out) is out
        estimate = twin.receive(batch)
        assert same_bits(out, estimate)
        # Neither is the memory itself.
        out.fill_(7.0)
        estimate.fill_(7.0)
    narrow = torch.zeros(D, dtype=torch.bfloat16)
    receiver, messages = rounds_of(method)
    assert same_bits(
        receiver.receive(messages[0], out=narrow), rounds_of(method)[0].receive(messages[0]).bfloat16()
    )


# State dicts


@every_method
def test_states_that_do_not_fit_are_refused(make):
    method = make(TOP)
    receiver, messages = rounds_of(method)
    sender = method.sender(D)
    sender.send(some_gradients(D))
    receiver.receive(messages[0])
    for end in (sender, receiver):
        before = end.state_dict()
        for changed, match in (
            ({**before, "layout": before["layout"] ^ 1}, "another layout"),
            ({**before, "more": 1}, "the keys"),
            ({name: v for name, v in before.items() if name != "round"}, "the keys"),
        ):
            with pytest.raises(ValueError, match=match):
                end.load_state_dict(changed)
            assert same_state(end.state_dict(), before)


def test_a_state_of_another_method_is_refused():
    for one, make in METHODS.items():
        for two, other in METHODS.items():
            saved = make(TOP).sender(D).state_dict()
            if saved.keys() != other(TOP).sender(D).state_dict().keys():
                with pytest.raises(ValueError, match="load it into the method that saved it"):
                    other(TOP).sender(D).load_state_dict(saved)
            else:
                assert one.split("-")[0].rstrip("+") == two.split("-")[0].rstrip("+"), (one, two)


@every_method
def test_a_state_dict_is_a_copy_both_ways(make):
    method = make(TOP)
    receiver, messages = rounds_of(method)
    sender, twin = method.sender(D), method.sender(D)
    for end, move in ((sender, lambda: sender.send(some_gradients(D))), (receiver, None)):
        (move or (lambda: receiver.receive(messages[0])))()
        state = end.state_dict()
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.fill_(9.0)
        fresh = end.state_dict()
        assert all(not bool((v == 9.0).all()) for v in fresh.values() if isinstance(v, torch.Tensor))
    saved = sender.state_dict()
    kept = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in saved.items()}
    twin.load_state_dict(saved)
    twin.send(some_gradients(D, seed=3))
    assert same_state(saved, kept)


# EF21+


def plus_rounds(rounds=40, nodes=4):
    method = laconic.EF21Plus(TOP)
    sender, receiver = method.sender(D, node=torch.arange(nodes)), method.receiver(D, nodes)
    generator = torch.Generator().manual_seed(2)
    g = torch.randn(nodes, D, generator=generator)
    for _ in range(rounds):
        before = memory_of(sender.state_dict())
        message = sender.send(g)
        yield g, before, message, memory_of(sender.state_dict()), receiver.receive(message), receiver
        # Small moves, where adding is nearer, and now and then a large one to a few large numbers.
        step = torch.rand(nodes, 1, generator=generator) < 0.8
        jump = torch.zeros(nodes, D)
        jump[:, :2] = torch.randn(nodes, 2, generator=generator) * 10
        g = torch.where(step, g + 0.1 * torch.randn(nodes, D, generator=generator), jump)


def test_ef21_plus_takes_the_nearer_one_node_by_node():
    chosen = []
    for g, before, message, after, estimate, receiver in plus_rounds():
        if message.round == 0:
            assert not message.replaces.any()
            continue
        added = before + TOP.compress(g - before).dense()
        replaced = TOP.compress(g).dense()
        errors = [((h - g).double() ** 2).sum(-1) for h in (after, added, replaced)]
        assert torch.equal(errors[0], torch.minimum(errors[1], errors[2]))
        assert torch.equal(message.replaces, (errors[2] < errors[1])[:, None])
        assert same_bits(after, torch.where(message.replaces, replaced, added))
        assert same_bits(receiver.state_dict()["memories"], after)
        assert (estimate - after.mean(0)).abs().max() <= 1e-6 * after.abs().max()
        chosen.append(message.replaces)
    # Both happen, also in one round.
    share = torch.stack(chosen).double().mean()
    assert 0.1 < share < 0.9
    assert any(bool(c.any()) and not bool(c.all()) for c in chosen)


def test_ef21_plus_takes_the_nearer_one_segment_by_segment():
    layout = Layout.of({"a": (D,), "b": (D,)})
    method = laconic.EF21Plus(TOP)
    sender, receiver = method.sender(layout), method.receiver(layout, 1)
    spread = torch.linspace(1.0, 2.0, D)
    sparse = torch.zeros(D)
    sparse[3] = 50.0
    receiver.receive([sender.send(torch.cat((spread, spread)))])
    message = sender.send(torch.cat((spread + 0.01, sparse)))
    assert message.replaces.tolist() == [False, True]
    estimate = receiver.receive([message])
    assert same_bits(estimate[D:], sparse)
    assert bool((estimate[:D] > 0.9).all())
    assert message.bits("entropy") == sum(TOP.compress(sparse).bits("entropy") + 1 for _ in range(2))


def test_ef21_plus_counts_its_flag():
    for number, (g, _, message, *_) in enumerate(plus_rounds(4)):
        plain = laconic.Identity().compress(g) if number == 0 else TOP.compress(g)
        assert torch.equal(message.bits("entropy"), plain.bits("entropy") + 1)
        assert torch.equal(message.bits("values"), plain.bits("values"))


@pytest.mark.parametrize("method", of(KIND_PAIRS, laconic.EF21Plus))
def test_equally_near_is_added(method):
    # From h = 0 both messages are the same.
    sender = dataclasses.replace(method, init="zero").sender(D)
    gradient = some_gradients(D)
    sender.send(gradient)
    assert not sender.send(gradient).replaces


# The linear receiver, beyond what the methods of today ask of it


@pytest.mark.parametrize(("lam", "nu"), [(0.5, 0.25), (0.25, 1.0), (0.0, 2.0), (0.5, 0.5)])
def test_the_linear_receiver_is_its_formula(lam, nu):
    weights = (0.5, 0.125, 2.0)
    receiver = LinearReceiver(Layout.flat(D), weights, lam=lam, nu=nu)
    _, messages = rounds_of(laconic.DCGD(TOP), nodes=3)
    G = torch.zeros(D)
    for batch in messages:
        # The weights are powers of two, so that the products are exact.
        mean = [w * message.dense() for w, message in zip(weights, batch, strict=True)]
        estimate = G
        for m in mean:
            estimate = estimate + nu * m
            G = G + lam * m
        if lam == nu:
            estimate = G
        assert same_bits(receiver.receive(batch), estimate)
        assert memory_of(receiver.state_dict()) is None or same_bits(memory_of(receiver.state_dict()), G)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay must lie in"):
        laconic.EF14(TOP, decay=decay)


def test_a_residual_is_kept_in_float32_or_bfloat16():
    with pytest.raises(ValueError, match="residual must be"):
        laconic.EF14(TOP, residual=torch.float16)
    narrow = laconic.EF14(TOP, residual=torch.bfloat16)
    assert narrow.sender(D).memories["residual"].dtype == torch.bfloat16
    assert narrow.sender(torch.zeros(D, dtype=torch.float64)).memories["residual"].dtype == torch.float64


@pytest.mark.parametrize("before", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("after", [torch.float32, torch.bfloat16])
def test_a_residual_is_loaded_in_the_methods_own_dtype(before, after):
    gradient = torch.randn(D, generator=torch.Generator().manual_seed(3))
    one, two = (laconic.EF14(TOP, residual=dtype).sender(D) for dtype in (before, after))
    one.send(gradient)
    two.load_state_dict(one.state_dict())
    assert same_bits(two.memories["residual"], one.memories["residual"].to(after))


def test_a_faded_memory_is_measured_before_it_fades():
    faded, whole = (laconic.EF14(TOP, decay=decay).sender(D) for decay in (0.5, 1.0))
    gradient = torch.arange(1.0, D + 1)
    assert faded.error(faded.send(gradient), gradient) == whole.error(whole.send(gradient), gradient)


def test_the_theory_of_a_faded_or_rounded_memory_is_not_made_up():
    with pytest.raises(laconic.theory.NoTheory, match="decay=1"):
        laconic.theory.stepsize(laconic.EF14(TOP, decay=0.9), d=D, L=1.0, L_tilde=1.0, mu=0.1)
    method = laconic.EF14(TOP, residual=torch.bfloat16)
    with pytest.raises(laconic.theory.NoTheory, match="does not round the memory"):
        laconic.theory.stepsize(method, d=D, L=1.0, L_tilde=1.0, mu=0.1)


@pytest.mark.parametrize("lengths", [(10, 4), (4, 9), (14,)])
def test_tensors_of_other_lengths_than_the_segments_are_refused(lengths):
    sender = laconic.EF14(laconic.TopK(2)).sender(laconic.Layout.of({"a": (4,), "b": (10,)}))
    with pytest.raises(ValueError, match="a tensor for each segment"):
        sender.send([torch.ones(length) for length in lengths])
    assert sender.round == 0
