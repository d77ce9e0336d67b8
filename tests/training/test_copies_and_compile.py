"""Optimisers and hook under torch.compile, when frozen later, copied, and with parameters without numbers."""

import contextlib
import copy
import io

import pytest
import torch
from processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD, LocalSteps

TOP = laconic.TopK(0.1)


def network(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(40, 40, bias=bias) for _ in range(3)])


def batch(step):
    return torch.randn(8, 40, generator=torch.Generator().manual_seed(step))


OPTIMIZERS = {
    "adamw": lambda p: CompressedAdamW(p, 0.01),
    "adamw, beta_1": lambda p: CompressedAdamW(p, 0.01, laconic.EF14(TOP), betas=(0.5, 0.9), clip=None),
    "sgd, momentum": lambda p: CompressedSGD(p, 0.1, laconic.EF14(TOP), momentum=0.9, clip=1.0),
    "adamw, overlap": lambda p: CompressedAdamW(p, 0.01, laconic.EF21(TOP), clip=None, overlap=True),
}


def trained(name, bias, compiled):
    """Weights after four steps; the step, or all of the training step, compiled."""
    model = network(bias)
    optimizer = OPTIMIZERS[name](model.parameters())

    def training_step(x):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step = optimizer.step
    if compiled == "step":
        step = torch.compile(lambda: optimizer.step(), backend="eager")  # noqa: PLW0108 - as users write it
    elif compiled == "training step":
        training_step = torch.compile(training_step, backend="eager")
    for number in range(4):
        if compiled == "training step":
            training_step(batch(number))
            continue
        optimizer.zero_grad()
        model(batch(number)).square().mean().backward()
        step()
    optimizer.close()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.filterwarnings("ignore")  # dynamo's own
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_steps_are_the_eager_ones(name, bias):
    eager = trained(name, bias, None)
    for compiled in ("step", "training step"):
        torch.compiler.reset()
        assert torch.equal(trained(name, bias, compiled), eager), compiled


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_frozen_later_stays_and_the_others_go_on(name):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    for step in range(8):
        if step == 4:
            model[0].requires_grad_(False)
            before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        optimizer.step()
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.equal(model[0].bias, before["0.bias"])
    assert not torch.equal(model[1].weight, before["1.weight"])
    # Trained again, it goes on.
    model[0].requires_grad_(True)
    optimizer.zero_grad()
    model(batch(9)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before["0.weight"])
    optimizer.close()


class WithoutOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(40, 40), nn.Linear(40, 0)
        self.quantised = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)

    def forward(self, x):
        return self.a(x).square().sum() + self.b(x).sum()


def _hook_gradients(rank):
    """Gradients of steps that are eager, and of those compiled as a whole."""
    found = []
    for compiled in (False, True):
        model = DistributedDataParallel(network())
        state = laconic.ddp.CommState(laconic.EF21(TOP), model=model, clip=1.0, timeout_s=30)
        model.register_comm_hook(state, laconic.ddp.hook)

        def training_step(x, model=model):
            model.zero_grad()
            model(x).square().mean().backward()

        step = torch.compile(training_step, backend="eager") if compiled else training_step
        for number in range(4):
            step(batch(10 * rank + number))
        found.append([p.grad.clone() for p in model.parameters()])
        state.close()
    return found


@pytest.mark.filterwarnings("ignore")
def test_the_hook_in_a_compiled_training_step_is_the_eager_one(tmp_path):
    for eager, compiled in run_ranks(_hook_gradients, 2, tmp_path):
        assert all(map(torch.equal, eager, compiled))


def _ddp_rank(rank):
    torch.manual_seed(0)
    model = DistributedDataParallel(WithoutOutputs())
    state = laconic.ddp.CommState(laconic.EF21(TOP), model=model, timeout_s=30)
    model.register_comm_hook(state, laconic.ddp.hook)
    for step in range(2):
        model.zero_grad()
        model(batch(step)).backward()
    found = model.module.a.weight.grad.clone()
    twin = copy.deepcopy(model)
    saved = io.BytesIO()
    torch.save(model, saved)
    average = AveragedModel(model.module)
    average.update_parameters(model.module)
    assert torch.equal(twin.module.a.weight, model.module.a.weight)
    steps = state.stats().steps
    twin(batch(0)).backward()  # PyTorch gives a copied DDP model no hook: it averages whole gradients
    assert state.stats().steps == steps
    with pytest.raises(RuntimeError, match="is a copy or came from a pickle"):
        copy.deepcopy(state).stats()
    state.close()
    return found


def test_empty_parameters_and_copies_of_a_ddp_model(tmp_path):
    first, second = run_ranks(_ddp_rank, 2, tmp_path)
    assert torch.equal(first, second)
    assert first.abs().sum() > 0


class WithAnEmptyBucket(nn.Module):
    """DDP makes a bucket of its own for each dtype: here of a parameter without a number."""

    def __init__(self, where):
        super().__init__()
        torch.manual_seed(0)
        empty = nn.Parameter(torch.empty(0, dtype=torch.float64))
        if where == "first":
            self.empty = empty
        self.a, self.b = nn.Linear(40, 40), nn.Linear(40, 40)
        if where == "last":
            self.empty = empty

    def forward(self, x):
        loss = self.b(self.a(x)).square().mean()
        return loss + self.empty.sum() if hasattr(self, "empty") else loss


def _empty_buckets(rank):
    found = {}
    for clip in (None, 0.1):
        for where in ("nowhere", "first", "last"):
            model = DistributedDataParallel(WithAnEmptyBucket(where), bucket_cap_mb=0.005)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            state = laconic.ddp.CommState(laconic.EF14(TOP), model=model, clip=clip, timeout_s=30)
            model.register_comm_hook(state, laconic.ddp.hook)
            for step in range(4):
                optimizer.zero_grad()
                with state.paused() if step == 2 else contextlib.nullcontext():
                    model(batch(10 * rank + step)).backward()
                optimizer.step()
            assert state.iteration == 3
            found[clip, where] = [p.detach().clone() for p in model.parameters() if p.numel()]
            state.close()
    return found


def test_a_bucket_of_empty_parameters_alone_changes_nothing(tmp_path):
    for found in run_ranks(_empty_buckets, 2, tmp_path):
        for (clip, where), weights in found.items():
            assert all(map(torch.equal, weights, found[clip, "nowhere"])), (clip, where)


@pytest.mark.parametrize("kind", ["adamw", "local"])
def test_a_copied_optimizer_says_what_to_do(kind):
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    if kind == "local":
        optimizer.close()
        optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.01), 2)
    saved = io.BytesIO()
    torch.save(optimizer, saved)
    saved.seek(0)
    for twin in (copy.deepcopy(optimizer), torch.load(saved, weights_only=False)):

        def add(twin=twin):
            twin.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})

        calls = [twin.step, twin.stats, twin.state_dict, twin.held_bytes, twin.check_replicas, add]
        for call in calls + ([twin.accumulate] if kind == "adamw" else []):
            with pytest.raises(RuntimeError, match="make a new one"):
                call()
        twin.close()
    optimizer.close()
