"""Ordinary PyTorch behaviour of every optimiser: one table."""

import copy
import math

import pytest
import torch
from processes import run_ranks
from torch import nn

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD, CompressedSignum, LocalSteps

TOP = laconic.EF14(laconic.TopK(0.1), decay=0.75)
LAST = {"clip": 0.05, "clip_by": "last"}
MAKE = {
    "adamw": lambda p: CompressedAdamW(p, 0.01, TOP, timeout_s=60),
    "sgd": lambda p: CompressedSGD(p, 0.1, TOP, timeout_s=60),
    "signum": lambda p: CompressedSignum(p, 0.01, TOP, timeout_s=60),
    "adamw, last norm": lambda p: CompressedAdamW(p, 0.01, TOP, timeout_s=60, **LAST),
    "sgd, last norm": lambda p: CompressedSGD(p, 0.1, TOP, timeout_s=60, **LAST),
    "signum, last norm": lambda p: CompressedSignum(p, 0.01, TOP, timeout_s=60, **LAST),
    "local": lambda p: LocalSteps(torch.optim.AdamW(p, 0.01), 2, TOP, timeout_s=60),
}
every_optimizer = pytest.mark.parametrize("kind", MAKE)


class Tied(nn.Module):
    """Two layers that share a weight, and one of their own each."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two, self.own = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.tanh(self.own(torch.tanh(self.one(x)))))


def loss_of(model, step, rank=0):
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(100 * step + rank))
    return (model(x) - x.roll(1, -1)).square().mean()


def steps(model, optimizer, numbers, rank=0):
    for step in numbers:
        optimizer.zero_grad()
        loss_of(model, step, rank).backward()
        optimizer.step()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@every_optimizer
def test_schedulers(kind):
    model, twin = Tied(), Tied()
    one, two = MAKE[kind](model.parameters()), MAKE[kind](twin.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(one, 0.5)
    for step in range(4):
        steps(model, one, [step])
        steps(twin, two, [step])
        scheduler.step()
        two.param_groups[0]["lr"] *= 0.5
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


@every_optimizer
def test_groups_and_subsets(kind):
    model = Tied()
    before = copy.deepcopy(model.state_dict())
    model.own.requires_grad_(False)
    groups = [{"params": [model.one.weight]}, {"params": [model.one.bias, model.two.bias], "lr": 0.0}]
    optimizer = MAKE[kind](groups)
    steps(model, optimizer, range(4))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    # AdamW's decay is times the learning rate, so a group of 0 stays; frozen layers do.
    assert changed == {"one.weight", "two.weight"}
    assert model.one.weight is model.two.weight
    optimizer.close()


@every_optimizer
def test_accumulation_is_the_sum_of_gradients(kind):
    model, twin = Tied(), Tied()
    one, two = MAKE[kind](model.parameters()), MAKE[kind](twin.parameters())
    for step in range(4):
        one.zero_grad()
        for part in (10 * step, 10 * step + 1):
            loss_of(model, part).backward()
        one.step()
        first = torch.autograd.grad(loss_of(twin, 10 * step), list(twin.parameters()))
        second = torch.autograd.grad(loss_of(twin, 10 * step + 1), list(twin.parameters()))
        for p, a, b in zip(twin.parameters(), first, second, strict=True):
            p.grad = a + b
        two.step()
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


@every_optimizer
def test_closures(kind):
    model, twin = Tied(), Tied()
    one, two = MAKE[kind](model.parameters()), MAKE[kind](twin.parameters())
    for step in range(4):

        def closure(step=step):
            one.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss.item()

        assert one.step(closure) == loss_of(twin, step).item()
        steps(twin, two, [step])
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


@every_optimizer
@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler(kind, unscale):
    model, twin = Tied(), Tied()
    one, two = MAKE[kind](model.parameters()), MAKE[kind](twin.parameters())
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(6):
        one.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        two.zero_grad()
        loss_of(twin, step).backward()
        if step == 3:
            for each in (model, twin):
                each.own.bias.grad[0] = math.inf
        if unscale:
            scaler.unscale_(one)
        scaler.step(one)
        scaler.update()
        two.step()
    assert torch.equal(weights(model), weights(twin))
    assert scaler.get_scale() == 2.0**11
    assert bool(torch.isfinite(weights(model)).all())
    one.close()
    two.close()


@every_optimizer
def test_hooks_of_state_dicts_and_steps(kind):
    model = Tied()
    optimizer = MAKE[kind](model.parameters())
    called = []
    optimizer.register_state_dict_post_hook(lambda _, state: called.append("saved") or {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda *_: called.append("loads"))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("loaded"))
    optimizer.register_step_pre_hook(lambda *_: called.append("steps"))
    optimizer.register_step_post_hook(lambda *_: called.append("stepped"))
    steps(model, optimizer, [0])
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["mine"] == 1
    optimizer.load_state_dict(saved)
    assert called == ["steps", "stepped", "saved", "loads", "loaded"]
    optimizer.close()


def _unused_on_one(rank):
    found = {}
    for kind, make in MAKE.items():
        model = Tied(seed=rank)
        optimizer = make(model.parameters())
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model, step, rank).backward()
            if rank == 1:
                model.own.weight.grad = None
            optimizer.step()
        found[kind] = weights(model)
        optimizer.close()
    return found


def test_a_parameter_without_a_gradient_on_one_rank_only(tmp_path):
    one, two = run_ranks(_unused_on_one, 2, tmp_path, timeout=180)
    for kind in MAKE:
        assert torch.equal(one[kind], two[kind]), kind
