"""CommState where something goes wrong: steps that are not finite, replicas that part, ranks that differ."""

import os

import pytest
import torch
from ddp_runs import FEEDBACKS, WIDTH, loss_of, memories, network, same, start, weights, wrapped
from processes import run_ranks
from states import segments_of
from torch import nn

import laconic

METHODS = ("ef14", "ef21", "ef21+", "ef21-sgdm")
# DDP's buckets come in reverse order: the last bucket holds the first layer.
PLACES = {"first bucket": "4.weight", "last bucket": "0.weight", "exempt": "2.bias"}
POISONED = (0, 2, 3, 6)
"""In the first step, in dense steps, in the step at which compression starts, and after it."""


def _course(rank, name, place, skip, start_iter):
    """A run with a GradScaler in which some steps are poisoned, or left out."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    clip = 0.1 if place == "first bucket" else None
    model, state, seen = start(
        network(), FEEDBACKS[name], 0.05, grad_scaler=scaler, start_iter=start_iter, clip=clip
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    poison = []
    parameter = dict(model.module.named_parameters())[PLACES[place]]

    def spoil(gradient):
        if poison:
            gradient = gradient.clone()
            gradient.view(-1)[-1] = torch.inf
        return gradient

    parameter.register_hook(spoil)
    problems = []
    for step in range(9):
        if skip and step in POISONED:
            continue
        before = weights(model), memories(state)
        optimizer.zero_grad()
        # Accumulation: the infinity comes in the part that is not synchronised.
        if step in POISONED and rank == 1:
            poison.append(True)
        with model.no_sync():
            scaler.scale(loss_of(model, step, rank, 0)).backward()
        poison.clear()
        scaler.scale(loss_of(model, step, rank, 1)).backward()
        if step in POISONED:
            if any(bool(p.grad.isfinite().all()) for p in model.parameters()):
                problems.append((step, "did not reach every parameter"))
            if not same(before[1], memories(state)) and step:
                problems.append((step, "changed a memory"))
            ends = [end for m in memories(state).values() for end in m.values()]
            if step == 0 and any(
                torch.as_tensor(v).any() for end in ends for v in end.values() if v is not None
            ):
                problems.append((step, "left a memory"))
        scaler.step(optimizer)
        scaler.update()
        if step in POISONED and not torch.equal(before[0], weights(model)):
            problems.append((step, "was not skipped"))
    if max(seen) == 0:
        problems.append("there is one bucket only")
    stats = state.stats()
    if (stats.steps, stats.skipped) != (5, 0 if skip else len(POISONED)):
        problems.append(stats)
    result = weights(model), memories(state)
    state.close()
    return result, problems


def _staged(rank):
    problems = []
    for name in METHODS:
        for place in PLACES:
            start_iter = 0 if place == "exempt" else 2
            bad, found = _course(rank, name, place, False, start_iter)
            good, more = _course(rank, name, place, True, start_iter)
            if not (torch.equal(bad[0], good[0]) and same(bad[1], good[1])):
                more.append("differs from the run without these steps")
            problems += [(name, place, what) for what in found + more]
    return problems


def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path):
    assert run_ranks(_staged, 2, tmp_path, timeout=150) == [[], []]


def _long(rank):
    """A thousand steps, then a replica that is changed alone."""
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8))
    feedback = laconic.EF21(laconic.TopK(0.05) >> laconic.NaturalCompression())
    model, state, _ = start(model, feedback, check_replicas_every=50, measure_error_every=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        x = torch.randn(4, 8)
        optimizer.zero_grad()
        (model(x) - x.flip(-1)).square().mean().backward()
        optimizer.step()

    for _ in range(1000):
        step()
    result = weights(model)
    state.check_replicas()
    error = state.stats().relative_error
    if rank == 1:
        with torch.no_grad():
            model.module[0].bias[3] += 1e-6
            model.module[2].weight[0, 0] += 1e-6
    with pytest.raises(laconic.ExchangeError, match=r"'0.bias' is the first .* on rank 1 from rank 0"):
        step()
    return result, error, state.iteration


def test_replicas_stay_equal_for_a_thousand_steps_and_the_first_that_differs_is_named(tmp_path):
    (first, error, iteration), (second, *_) = run_ranks(_long, 2, tmp_path)
    assert torch.equal(first, second)
    assert 0 < error < 10
    assert iteration == 1000


def _resumed(rank, folder):
    found = {}
    for name in METHODS:
        settings = {"density": {0: None, 2: 0.2, 6: FEEDBACKS[name]}, "seed": 3}
        model, state, _ = start(network(), FEEDBACKS[name], 0.05, **settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        path = folder / f"{name}-{rank}.pt"
        for step in range(9):
            if step == 4:
                parts = (model.module, optimizer, state)
                torch.save([part.state_dict() for part in parts], path)
            optimizer.zero_grad()
            loss_of(model, step, rank).backward()
            optimizer.step()
        through = weights(model), memories(state)
        state.close()
        # A new model with other buckets.
        model, state, _ = start(network(), FEEDBACKS[name], 25.0, **settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for part, saved in zip(
            (model.module, optimizer, state), torch.load(path, weights_only=True), strict=True
        ):
            part.load_state_dict(saved)
        for step in range(4, 9):
            optimizer.zero_grad()
            loss_of(model, step, rank).backward()
            optimizer.step()
        found[name] = torch.equal(through[0], weights(model)) and same(through[1], memories(state))
        if name != METHODS[-1]:
            state.close()
    state.consolidate_state_dict()
    state.resync()
    fresh, other, _ = start(network(), FEEDBACKS["ef21-sgdm"], seed=3)
    saved, new = (segments_of(each.state_dict()["exchange"], rank) for each in (state, other))
    found["saved after resync"] = same(saved, new)
    fresh.module.load_state_dict(model.module.state_dict())
    for step in range(9, 12):
        for run in (model, fresh):
            run.zero_grad()
            loss_of(run, step, rank).backward()
        found["resync", step] = all(
            torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), fresh.parameters(), strict=True)
        )
    found["resynced memories"] = same(memories(state), memories(other))
    return found


def test_resume_is_bit_exact_and_resync_starts_anew(tmp_path):
    for results in run_ranks(_resumed, 2, tmp_path, tmp_path):
        assert all(results.values()), results


def _refused(rank):
    feedback = FEEDBACKS["ef14"]

    def backward(model, x=None):
        model(torch.ones(2, WIDTH) if x is None else x).abs().sum().backward()

    def fails(words, error, call, *arguments):
        with pytest.raises(error, match=words):
            call(*arguments)

    def hooked(model, state):
        model.register_comm_hook(state, laconic.ddp.hook)
        return model

    # No model.
    state = laconic.ddp.CommState(feedback)
    fails(r"state.attach\(model\)", RuntimeError, backward, hooked(wrapped(network()), state))
    # Parameters that were frozen, then are not, and the other way round.
    frozen = network()
    frozen[0].weight.requires_grad_(False)
    state = laconic.ddp.CommState(feedback, model=frozen)
    frozen[0].weight.requires_grad_(True)
    fails("was frozen when the ranks agreed", RuntimeError, backward, hooked(wrapped(frozen), state))
    frozen = network()
    state = laconic.ddp.CommState(feedback, model=frozen)
    frozen[0].weight.requires_grad_(False)
    fails("did not send the gradient of '0.weight'", RuntimeError, backward, hooked(wrapped(frozen), state))
    # Other models, or other settings.
    other = nn.Linear(WIDTH, 3 + rank)
    make = lambda **settings: laconic.ddp.CommState(feedback, **settings)  # noqa: E731
    fails("the ranks differ in segment 'weight'", ValueError, lambda: make(model=other))
    fails("the ranks differ in seed: 1 on rank 1", ValueError, lambda: make(model=network(), seed=rank))
    later = {0: 0.5, 10: 0.1 + 0.1 * rank}
    fails("the ranks differ in schedule", ValueError, lambda: make(model=network(), density=later))

    # What DDP can do and this cannot.
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, WIDTH, sparse=True)

        def forward(self, x):
            return self.table(x)

    sparse = wrapped(Embedded())
    fails("sparse=False", TypeError, backward, hooked(sparse, make(model=sparse)), torch.tensor([1]))
    joined = wrapped(network())
    hooked(joined, make(model=joined))

    def join():
        with joined.join():
            backward(joined)

    fails("inside DDP's join", RuntimeError, join)
    # A rank that dies, not before DDP has made its own collective of the second step.
    model, state, _ = start(network(), feedback)
    backward(model)
    backward(model)
    if rank == 1:
        os._exit(0)
    fails("rank 0 waited for round 2 of the bucket of .*, all_gather", laconic.ExchangeError, backward, model)
    os._exit(0)


def test_misuse_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError):  # the last case leaves no rank to save a result
        run_ranks(_refused, 2, tmp_path)
