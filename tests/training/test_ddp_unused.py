"""Parameters that no rank uses in a step, under DDP: their memories go on, and nothing of them is lost."""

import dataclasses

import pytest
import torch
from ddp_runs import FEEDBACKS, WIDTH, memories, same, start, wrapped
from processes import run_ranks
from torch import nn

import laconic

RANKS, STEPS = 2, 12
METHODS = ("ef14", "ef14-random", "ef21", "ef21-sgdm")
OPTIONS = {
    "plain": {},
    "views": {"gradient_as_bucket_view": True},
    "in place": {"set_to_none": False},
    "views in place": {"gradient_as_bucket_view": True, "set_to_none": False},
    "unknown": {"known": False},
    "unknown in place": {"known": False, "set_to_none": False},
    "unknown views in place": {"known": False, "gradient_as_bucket_view": True, "set_to_none": False},
    "accumulated": {"micro": 2},
    "small buckets": {"cap": 0.01},
    "scaled": {"scale": 8.0},
    "compiled": {"compiled": True},
}


class Heads(nn.Module):
    """A trunk, a head that only some steps use, and one that none does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head, self.never = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x, use):
        return self.trunk(x) + self.head(x) if use else self.trunk(x)


def uses(rank, step):
    """Both ranks use the head, one, none, one by one, and none for long."""
    return step in (0, 1, 4) or (step == 2 and rank == 1)


def loss_of(model, rank, step, part=0, scale=1.0):
    seed = 1000 * part + 10 * step + rank
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed))
    # Of an accumulating pass the first part alone uses the head.
    return model(x, uses(rank, step) and part == 0).square().sum() * scale


def gradients_under_ddp(
    rank,
    feedback,
    *,
    set_to_none=True,
    known=True,
    micro=1,
    scale=1.0,
    compiled=False,
    cap=25,
    **options,
):
    """What stands in .grad after each step, and the memories at the end."""
    inner = Heads()
    model = wrapped(inner, cap, find_unused_parameters=True, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale != 1.0 else None
    settings = {"model": model if known else inner, "grad_scaler": scaler, "seed": 3, "timeout_s": 60}
    state = laconic.ddp.CommState(feedback, **settings)
    model.register_comm_hook(state, laconic.ddp.hook)

    def backward(step):
        for part in range(micro - 1):
            with model.no_sync():
                loss_of(model, rank, step, part, scale).backward()
        loss_of(model, rank, step, micro - 1, scale).backward()

    run = torch.compile(backward, backend="eager") if compiled else backward
    if not set_to_none:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    found = []
    for step in range(STEPS):
        model.zero_grad(set_to_none=set_to_none)
        run(step)
        found.append({n: None if p.grad is None else p.grad / scale for n, p in inner.named_parameters()})
    result = found, memories(state)
    state.close()
    return result


def written_down(feedback, micro=1):
    """The same without DDP: zeros for what a rank did not use; no gradient where that makes zeros only."""
    model = Heads()
    layout = laconic.Layout.of(dict(model.named_parameters()))
    if hasattr(feedback, "init"):
        feedback = dataclasses.replace(feedback, init="bfloat16")
    senders = [feedback.sender(layout, node=rank, seed=3) for rank in range(RANKS)]
    receiver = feedback.receiver(layout, RANKS)
    found, total = [], torch.zeros(layout.d)
    for step in range(STEPS):
        sent, used = [], set()
        for rank, sender in enumerate(senders):
            model.zero_grad()
            for part in range(micro):
                loss_of(model, rank, step, part).backward()
            used |= {name for name, p in model.named_parameters() if p.grad is not None}
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
            vector = torch.cat([each.reshape(-1) for each in own])
            total += vector / RANKS
            sent.append(sender.send(vector))
        estimate = receiver.receive(sent)
        parts = {s.name: estimate[s.offset : s.end].reshape(WIDTH, WIDTH).clone() for s in layout.segments}
        found.append({n: e if n in used or e.any() else None for n, e in parts.items()})
    return found, total


def flat(by_name):
    """The numbers of all parameters, zeros where there are none."""
    zero = torch.zeros(WIDTH, WIDTH)
    return torch.cat([(zero if each is None else each).reshape(-1) for each in by_name.values()])


def _all_options(rank):
    found = {
        option: {"ef14": gradients_under_ddp(rank, FEEDBACKS["ef14"], **OPTIONS[option])}
        for option in OPTIONS
    }
    for name in METHODS:
        found["plain"][name] = gradients_under_ddp(rank, FEEDBACKS[name])
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(_all_options, RANKS, tmp_path_factory.mktemp("unused"), timeout=200)


def compare(runs, name, option):
    expected, total = written_down(FEEDBACKS[name], OPTIONS[option].get("micro", 1))
    # Something waits, and all of it arrives.
    heads = [estimates["head.weight"] for estimates in expected]
    assert heads[5] is not None
    for gradients, _ in runs:
        for step, (own, estimates) in enumerate(zip(gradients, expected, strict=True)):
            zeroed = torch.zeros(WIDTH, WIDTH) if "in place" in option else None
            whole = {n: zeroed if each is None else each for n, each in estimates.items()}
            assert same(own, whole), (name, option, step)
    return total


@pytest.mark.parametrize("option", OPTIONS)
def test_the_estimate_is_the_gradient_of_what_no_rank_used(option, ranks):
    runs = [rank[option]["ef14"] for rank in ranks]
    total = compare(runs, "ef14", option)
    # Nothing of the sum of gradients is lost: it was in .grad, or waits in a residual.
    waiting = [flat({n: own["sender"]["residual"] for n, own in memory.items()}) for _, memory in runs]
    arrived = sum(flat(gradients) for gradients in runs[0][0])
    torch.testing.assert_close(arrived + sum(waiting) / RANKS, total, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_so_it_is_with_every_kind_of_memory(name, ranks):
    compare([rank["plain"][name] for rank in ranks], name, "plain")


def _left_alone(rank):
    """The head's gradient where a pass is paused or void, and where the head is frozen."""
    found = {}
    for kind in ("paused", "void", "frozen"):
        model, state, _ = start(Heads(), FEEDBACKS["ef14"], ddp={"find_unused_parameters": True})
        inner = model.module
        for step in range(2):
            model.zero_grad()
            loss_of(model, rank, step).backward()
        before = memories(state)["head.weight"]
        model.zero_grad()
        if kind == "frozen":
            inner.head.requires_grad_(False)
        with state.paused() if kind == "paused" else torch.enable_grad():
            loss_of(model, rank, 6, scale=torch.inf if kind == "void" else 1.0).backward()
        trunk, head = inner.trunk.weight.grad, inner.head.weight.grad
        found[kind] = head is None, bool(trunk.isnan().all()), same(memories(state)["head.weight"], before)
        if kind != "frozen":
            # What waited arrives in the next step.
            model.zero_grad()
            loss_of(model, rank, 7).backward()
            assert inner.head.weight.grad.any()
        state.close()
    return found


def test_passes_without_an_estimate_and_frozen_parameters(tmp_path):
    for found in run_ranks(_left_alone, RANKS, tmp_path):
        assert found == {
            "paused": (True, False, True),
            "void": (True, True, True),
            # As in the optimisers, what waited is dropped.
            "frozen": (True, False, False),
        }
