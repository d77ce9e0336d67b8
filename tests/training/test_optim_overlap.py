"""Sending while the backward pass runs changes no value."""

import dataclasses
import math

import pytest
import torch
from processes import run_ranks
from torch import nn

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD

ROUNDED = laconic.EF14(laconic.TopK(0.1) >> laconic.RandomDithering(8, 2).contractive())


KINDS = "adamw", "adamw, clipped"
"""Of the runs on two ranks, which have norms of their own."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 24))


def backward(model, step, rank=0, scale=1.0):
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(100 * step + rank))
    ((model(x) - x.roll(1, -1)).square().mean() * scale).backward()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def make(model, kind, overlap):
    settings = {"overlap": overlap, "timeout_s": 60, "bucket_cap_mb": 500 * 4 / 2**20}
    if kind == "sgd":
        feedback = laconic.EF21(laconic.TopK(0.1))
        return CompressedSGD(model.parameters(), 0.1, feedback, 0.5, **settings)
    groups = [{"params": model[0].parameters(), "lr": 0.003}, {"params": model[2:].parameters()}]
    clipped = {"clip": 0.1, "clip_by": "last"} if kind == "adamw, clipped" else {"clip": None}
    return CompressedAdamW(groups, 0.01, ROUNDED, **clipped, **settings)


def train(kind, overlap, rank=0):
    """Weights and moments after accumulation, a void step, a missing gradient; and what was sent when."""
    model = network()
    optimizer = make(model, kind, overlap)
    sent, early = [], []
    if overlap:
        exchange = optimizer.session.exchange
        submit = exchange.submit
        exchange.submit = lambda names, updates, **more: (
            sent.append(tuple(names)) or submit(names, updates, **more)
        )
    for step in range(8):
        optimizer.zero_grad()
        with optimizer.accumulate():
            backward(model, 50 + step, rank)
        assert not sent
        missing = step == 5 and rank == 0  # a gradient, on one rank
        cut = model[0].register_forward_hook(lambda _, __, out, cut=missing: out.detach() if cut else out)
        backward(model, step, rank, scale=math.inf if step == 3 and rank == 0 else 1.0)
        cut.remove()
        early.append(tuple(sent))
        optimizer.step()
        sent.clear()
    assert optimizer.skipped == 1
    state = {key: value.clone() for s in optimizer.state.values() for key, value in s.items()}
    optimizer.close()
    return weights(model), state, early


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_overlap_changes_no_value(kind):
    plain, state, _ = train(kind, overlap=False)
    overlapped, other, early = train(kind, overlap=True)
    assert torch.equal(plain, overlapped)
    assert all(torch.equal(state[key], other[key]) for key in state)
    # Each of three buckets was sent in the backward pass, but for the one whose gradients did not come.
    buckets = (("5", "4"), ("3", "2"), ("1", "0"))
    assert early == [buckets] * 5 + [buckets[:2]] + [buckets] * 2


def _both(rank):
    return {kind: [train(kind, overlap, rank)[0] for overlap in (False, True)] for kind in KINDS}


def test_overlap_changes_no_value_on_two_ranks(tmp_path):
    first, second = run_ranks(_both, 2, tmp_path)
    for kind in KINDS:
        for found in (first[kind][1], *second[kind]):
            assert torch.equal(first[kind][0], found), kind


def test_a_second_backward_pass_needs_accumulate():
    model = network()
    optimizer = make(model, "sgd", overlap=True)
    backward(model, 0)
    with pytest.raises(RuntimeError, match="second gradient before"):
        backward(model, 1)
    optimizer.close()


def test_clip_needs_the_whole_norm():
    with pytest.raises(ValueError, match="needs clip=None, or clip_by='last'"):
        CompressedAdamW(network().parameters(), 0.01, overlap=True)


def test_a_setting_that_changes_on_the_way_is_refused():
    model = network()
    optimizer = make(model, "adamw", overlap=True)
    backward(model, 0)
    optimizer.param_groups[1]["lr"] = 0.02
    with pytest.raises(RuntimeError, match=r"lr of group 1 changed from 0.01 to 0.02 between"):
        optimizer.step()
    optimizer.close()


def test_a_grad_scaler_is_refused():
    model = network()
    optimizer = make(model, "adamw", overlap=True)
    scaler = torch.amp.GradScaler(device="cpu")
    scaler.scale(torch.ones(()))
    backward(model, 0)
    with pytest.raises(RuntimeError, match="use overlap=False with it"):
        scaler.step(optimizer)
    optimizer.close()


def test_close_lets_go_of_the_parameters():
    model = network()
    make(model, "sgd", overlap=True).close()
    backward(model, 0)
    again = make(model, "sgd", overlap=True)
    model.zero_grad()
    backward(model, 1)
    again.step()
    assert again.stats().steps == 1
    again.close()


class Recording(CompressedSGD):
    """Notes when the updates of a bucket are computed."""

    events = ()

    def updates_of(self, bucket, factors):
        self.events = [*self.events, "update"]
        return super().updates_of(bucket, factors)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_bucket_is_exchanged_while_the_next_ones_updates_are_computed(clip):
    model = network()
    optimizer = Recording(model.parameters(), 0.1, ROUNDED, clip=clip, bucket_cap_mb=500 * 4 / 2**20)
    exchange = optimizer.session.exchange
    submit = exchange.submit

    def recorded(names, updates, **more):
        optimizer.events.append("submit")
        return submit(names, updates, **more)

    exchange.submit = recorded
    backward(model, 0)
    optimizer.step()
    assert optimizer.events == ["update", "submit"] * 3
    optimizer.close()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16])
def test_the_size_of_buckets_changes_no_value(clip, residual):
    feedback = dataclasses.replace(ROUNDED, residual=residual)
    found = []
    for cap in (1e-6, 500 * 4 / 2**20, 25.0):
        model = network()
        optimizer = CompressedAdamW(model.parameters(), 0.01, feedback, clip=clip, bucket_cap_mb=cap)
        for step in range(4):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
        optimizer.close()
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
