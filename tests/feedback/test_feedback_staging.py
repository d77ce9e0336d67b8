"""A round is staged, then committed or rolled back: every compressor with every method."""

import pytest
import torch
from courses import ALL_PAIRS, METHODS, SEED, D, same_bits, same_message, same_state, some_gradients

import laconic

NODES, ROUNDS = 2, 4


def ends(method):
    return [method.sender(D, node=i, seed=SEED) for i in range(NODES)], method.receiver(D, NODES)


@pytest.mark.parametrize("method", ALL_PAIRS)
def test_rounds_that_are_rolled_back_leave_no_trace(method):
    (senders, receiver), (other_senders, other) = ends(method), ends(method)
    wasted = some_gradients(ROUNDS, NODES, D, seed=5)
    for t, gradients in enumerate(some_gradients(ROUNDS, NODES, D, seed=4)):
        before = [end.state_dict() for end in (*senders, receiver)]
        lost = [s.stage(g) for s, g in zip(senders, wasted[t], strict=True)]
        receiver.stage(lost, out=torch.empty(D))
        if t % 2:  # else what is staged is replaced
            for end in (*senders, receiver):
                end.roll_back()
        assert all(map(same_state, [end.state_dict() for end in (*senders, receiver)], before))

        messages = [s.stage(g) for s, g in zip(senders, gradients, strict=True)]
        estimate = receiver.stage(messages, out=torch.empty(D)).clone()
        assert all(map(same_state, [end.state_dict() for end in (*senders, receiver)], before))
        for end in (*senders, receiver):
            end.commit()

        expected = [s.send(g) for s, g in zip(other_senders, gradients, strict=True)]
        assert all(map(same_message, messages, expected))
        assert same_bits(estimate, other.receive(expected))
        after = [end.state_dict() for end in (*other_senders, other)]
        assert all(map(same_state, [end.state_dict() for end in (*senders, receiver)], after))


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_nothing_is_committed_twice(make):
    method = make(laconic.TopK(2))
    sender, receiver = method.sender(D), method.receiver(D, 1)
    receiver.stage([sender.stage(torch.ones(D))])
    for end in (sender, receiver):
        end.commit()
        with pytest.raises(RuntimeError, match="nothing is staged"):
            end.commit()
        end.roll_back()
        assert end.round == 1


@pytest.mark.parametrize("place", [3, 30], ids=["compressed", "exempt"])
@pytest.mark.parametrize("method", [laconic.EF14, laconic.EF21, laconic.EF21Plus], ids=lambda m: m.__name__)
def test_what_is_not_finite_in_one_segment_leaves_all_as_they_were(method, place):
    """Also what an earlier segment has already moved."""
    layout = laconic.Layout.of({"a": (20,), "b": (30,)}, bfloat16=["b"])
    sender, other = (method(laconic.TopK(2)).sender(layout) for _ in range(2))
    for gradient in some_gradients(3, layout.d, seed=1):
        sender.send(gradient)
        other.send(gradient)
        bad = gradient + 1
        bad[place] = torch.inf
        with pytest.raises(laconic.compressors.NotFiniteError):
            sender.send(bad)
        assert same_state(sender.state_dict(), other.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ALL_PAIRS)
def test_a_narrow_gradient_counts_like_the_same_numbers_widened(method, dtype):
    sender, other = (method.sender(D, seed=SEED) for _ in range(2))
    for gradient in some_gradients(ROUNDS, D, seed=3):
        narrow = gradient.to(dtype)
        assert same_message(sender.send(narrow), other.send(narrow.float()))
        assert same_state(sender.state_dict(), other.state_dict())
