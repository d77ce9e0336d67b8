"""Clipping by the norm of the last step that stood: as by hand, with overlap or without."""

import copy
import math

import pytest
import torch
from torch import nn

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD, CompressedSignum

TOP = laconic.EF14(laconic.TopK(0.1))
SMALL_BUCKETS = {"bucket_cap_mb": 500 * 4 / 2**20}
CLIPS = 0.02, 0.05
"""Of the first layer, and of the others."""
MAKE = {
    "adamw": lambda p, **more: CompressedAdamW(p, 0.01, TOP, **more),
    "sgd": lambda p, **more: CompressedSGD(p, 0.1, TOP, momentum=0.5, **more),
    "signum": lambda p, **more: CompressedSignum(p, 0.01, TOP, **more),
}
every_optimizer = pytest.mark.parametrize("kind", MAKE)
pytestmark = pytest.mark.filterwarnings("ignore:momentum > 0 together")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 24))


def make(kind, model, clips=CLIPS, **settings):
    groups = [
        {"params": list(model[0].parameters()), "clip": clips[0]},
        {"params": list(model[2:].parameters()), "clip": clips[1]},
    ]
    return MAKE[kind](groups, **SMALL_BUCKETS, **settings)


def backward(model, step):
    """Gradients that differ in length, those of step 2 not finite, those of step 4 zeros."""
    model.zero_grad()
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(step))
    scale = {2: math.inf, 4: 0.0}.get(step, 1.0 + step % 3)
    ((model(x) - x.roll(1, -1)).square().mean() * scale).backward()


def train(model, optimizer, steps, seen=None):
    for step in steps:
        backward(model, step)
        if seen is not None:
            seen()
        optimizer.step()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def norm_of(gradients):
    return math.sqrt(sum(float(laconic.kernels.squared_norm(g.reshape(-1))) for g in gradients))


def train_by_hand(model, optimizer, steps):
    """Scale the gradients before an optimiser that does not clip."""
    layers = [list(model[0].parameters()), list(model[2:].parameters())]
    last = [0.0, 0.0]
    for step in steps:
        backward(model, step)
        norms = [norm_of([p.grad for p in layer]) for layer in layers]
        stands = all(map(math.isfinite, norms))
        for layer, clip, before, now in zip(layers, CLIPS, last, norms, strict=True):
            norm = before or now
            factor = min(1.0, clip / norm) if norm and stands else 1.0
            for p in layer:
                p.grad.mul_(factor)
        last = norms if stands else last
        optimizer.step()


@every_optimizer
@pytest.mark.parametrize("overlap", [False, True])
def test_the_last_norm_clips_as_by_hand(kind, overlap):
    model, twin = network(), network()
    optimizer = make(kind, model, clip_by="last", overlap=overlap)
    plain = make(kind, twin, clips=(None, None))
    early = []
    train(model, optimizer, range(8), lambda: early.append(optimizer._buckets.started))
    train_by_hand(twin, plain, range(8))
    assert torch.equal(weights(model), weights(twin))
    assert optimizer.skipped == 1
    # The first step, and that after a step of zeros, are clipped by their own norm.
    assert early == [overlap and step not in (0, 5) for step in range(8)]
    optimizer.close()
    plain.close()


@every_optimizer
@pytest.mark.parametrize("steps", [1, 4])
def test_resume_is_bit_exact(kind, steps):
    model = network()
    optimizer = make(kind, model, clip_by="last", overlap=True)
    train(model, optimizer, range(steps))
    saved, parameters = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    other = network(seed=1)
    resumed = make(kind, other, clip_by="last", overlap=True)
    other.load_state_dict(parameters)
    resumed.load_state_dict(saved)
    for each in ((model, optimizer), (other, resumed)):
        train(*each, range(steps, 8))
    assert torch.equal(weights(model), weights(other))
    optimizer.close()
    resumed.close()


def test_a_step_that_is_void_leaves_the_last_norm():
    model = network()
    optimizer = make("adamw", model, clip_by="last")
    train(model, optimizer, [0, 1])
    before = [float(optimizer.state[layer.weight]["last_norm"]) for layer in (model[0], model[2])]
    train(model, optimizer, [2])
    assert optimizer.skipped == 1
    assert before == [float(optimizer.state[layer.weight]["last_norm"]) for layer in (model[0], model[2])]
    optimizer.close()


@pytest.mark.parametrize("dense", [False, True])
def test_states_without_a_last_norm_are_loaded(dense):
    """Of an optimiser that clips by this step's norm, or a dense one: the next step is clipped by its own."""
    model, twin = network(), network()
    old = torch.optim.AdamW(make_groups(model), 0.01) if dense else make("adamw", model)
    train(model, old, [0, 1])
    optimizer, plain = (make("adamw", m, clip_by=by) for m, by in ((model, "last"), (twin, "this")))
    twin.load_state_dict(model.state_dict())
    for each in (optimizer, plain):
        each.load_state_dict(copy.deepcopy(old.state_dict()))
    for each in ((model, optimizer), (twin, plain)):
        train(*each, [3])
    assert torch.equal(weights(model), weights(twin))
    train(model, optimizer, [6])
    back = make("adamw", network())
    back.load_state_dict(optimizer.state_dict())
    assert not any("last_norm" in own for own in back.state.values())
    for each in (optimizer, plain, back):
        each.close()
    if not dense:
        old.close()


def make_groups(model):
    return [{"params": list(model[0].parameters())}, {"params": list(model[2:].parameters())}]


def test_a_clip_that_is_loaded_ends_the_overlap():
    """Nothing is sent in backward where a state brings a clip by this step's norm."""
    model, twin = network(), network()
    plain = make("sgd", twin)
    optimizer = make("sgd", model, clips=(None, None), overlap=True)
    optimizer.load_state_dict(plain.state_dict())
    early = []
    train(model, optimizer, range(4), lambda: early.append(optimizer._buckets.started))
    train(twin, plain, range(4))
    assert not any(early)
    assert torch.equal(weights(model), weights(twin))
    optimizer.close()
    plain.close()


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"clip_by must be one of \('this', 'last'\), got 'next'"):
        make("sgd", network(), clip_by="next")
