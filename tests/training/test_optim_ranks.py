"""The compressed optimisers over real processes."""

import copy
import math

import numpy as np
import pytest
import torch
from comparing import same
from processes import run_ranks
from torch import nn

import laconic
from laconic.layout import Layout
from laconic.optim import CompressedAdamW, CompressedSGD

RANKS = 2
FEEDBACKS = {
    "ef14": laconic.EF14(laconic.TopK(0.1)),
    "ef14-1bit": laconic.EF14(laconic.TopK(0.1) >> laconic.ScaledSign()),
    "random": laconic.EF14(laconic.RandK(0.2).contractive()),
    "ef21": laconic.EF21(laconic.TopK(0.1)),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24))


def gradients(model, step, rank):
    """This rank's gradients of the step, on data of its own."""
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(100 * step + rank))
    model.zero_grad()
    (model(x) - x.roll(1, -1)).square().mean().backward()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def snapshot(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def _train(rank, name, steps):
    model = network(seed=rank)
    optimizer = CompressedAdamW(
        model.parameters(), 0.01, FEEDBACKS[name], seed=3, weight_decay=0.1, timeout_s=60
    )
    for step in range(steps):
        gradients(model, step, rank)
        optimizer.step()
    stats = optimizer.stats()
    optimizer.close()
    return weights(model), optimizer.state[next(model.parameters())]["exp_avg_sq"], stats.bytes_sent


def _simulated(name, steps):
    """The same in one process, written down: a model, and a second moment and a sender for each node."""
    feedback, model = FEEDBACKS[name], network(seed=0)
    parameters = {str(i): p for i, p in enumerate(model.parameters())}
    layout = Layout.of(parameters, bfloat16=[n for n, p in parameters.items() if p.dim() <= 1])
    senders = [feedback.sender(layout, node=node, seed=3) for node in range(RANKS)]
    receiver = feedback.receiver(layout, RANKS)
    moments = [{n: torch.zeros_like(p) for n, p in parameters.items()} for _ in range(RANKS)]
    inside = feedback.estimates == "step"
    for step in range(steps):
        messages = []
        for node in range(RANKS):
            gradients(model, step, node)
            square = sum(float(laconic.kernels.squared_norm(p.grad.reshape(-1))) for p in parameters.values())
            factor = min(1.0, 0.5 / math.sqrt(square))
            updates = []
            for n, p in parameters.items():
                g = p.grad * factor
                v = moments[node][n] = moments[node][n] * 0.99 + g * g * (1 - 0.99)
                # Correctly rounded, as PyTorch's square root of float32 is not.
                root = torch.from_numpy(np.sqrt((v / (1 - 0.99 ** (step + 1))).numpy()))
                u = g / (root + 1e-8)
                updates.append((u * 0.01 if inside else u).reshape(-1))
            messages.append(senders[node].send(torch.cat(updates)))
        estimate = receiver.receive(messages) * (1.0 if inside else 0.01)
        with torch.no_grad():
            for segment, p in zip(layout.segments, parameters.values(), strict=True):
                p.copy_(p * (1 - 0.01 * 0.1) - estimate[segment.offset : segment.end].view_as(p))
    return weights(model), [moment["0"] for moment in moments]


@pytest.mark.parametrize("name", FEEDBACKS)
def test_replicas_are_equal_and_equal_to_the_simulation(name, tmp_path):
    steps = 15
    ranks = run_ranks(_train, RANKS, tmp_path, name, steps)
    simulated, moments = _simulated(name, steps)
    for rank, (found, second, sent) in enumerate(ranks):
        assert torch.equal(found, simulated)
        assert torch.equal(second, moments[rank])
        assert sent > 0
    assert not torch.equal(moments[0], moments[1])


def _poisoned(rank, make_name, where, scaled):
    model = network()
    sgd = make_name == "sgd"
    make = CompressedSGD if sgd else CompressedAdamW
    optimizer = make(model.parameters(), 0.01, FEEDBACKS["ef14" if sgd else make_name], timeout_s=60)
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**8, growth_interval=100, enabled=scaled)
    unchanged = []
    for step in range(6):
        gradients(model, step, rank)
        if scaled:
            for p in model.parameters():
                p.grad *= scaler.scale(torch.ones(()))
        poison = step in (0, 3) and rank == 1
        if poison:
            list(model.parameters())[where].grad.view(-1)[-1] = math.inf
        before = weights(model), snapshot(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if step in (0, 3):
            after = snapshot(optimizer)
            unchanged.append(
                torch.equal(weights(model), before[0]) and same(after["state"], before[1]["state"])
            )
    skipped = optimizer.skipped
    optimizer.close()
    return weights(model), unchanged, skipped, scaler.get_scale() if scaled else None


def _healthy(rank, make_name):
    model = network()
    sgd = make_name == "sgd"
    make = CompressedSGD if sgd else CompressedAdamW
    optimizer = make(model.parameters(), 0.01, FEEDBACKS["ef14" if sgd else make_name], timeout_s=60)
    for step in (1, 2, 4, 5):
        gradients(model, step, rank)
        optimizer.step()
    optimizer.close()
    return weights(model)


@pytest.mark.parametrize(
    ("make_name", "where", "scaled"),
    [("ef14", 0, False), ("ef14", -1, True), ("ef21", 2, True), ("sgd", 1, False)],
)
def test_an_infinity_on_one_rank_makes_the_step_void_on_all(make_name, where, scaled, tmp_path):
    ranks = run_ranks(_poisoned, RANKS, tmp_path, make_name, where, scaled)
    expected = run_ranks(_healthy, RANKS, tmp_path, make_name)
    for rank, (found, unchanged, skipped, scale) in enumerate(ranks):
        assert all(unchanged), (rank, unchanged)
        assert skipped == 2
        assert torch.equal(found, expected[0])
        # Each rank's scale is its own, and so may differ; memories are in unscaled units.
        assert scale == (None if not scaled else 2.0**6 if rank == 1 else 2.0**8)


def _resumed(rank, folder):
    model = network()
    optimizer = CompressedAdamW(model.named_parameters(), 0.01, FEEDBACKS["ef14-1bit"], timeout_s=60)
    for step in range(4):
        gradients(model, step, rank)
        optimizer.step()
    torch.save((model.state_dict(), optimizer.state_dict()), folder / f"checkpoint-{rank}.pt")
    for step in range(4, 8):
        gradients(model, step, rank)
        optimizer.step()
    straight = weights(model)
    optimizer.close()

    model = network(seed=5)
    optimizer = CompressedAdamW(model.named_parameters(), 0.01, FEEDBACKS["ef14-1bit"], timeout_s=60)
    other, mine = (torch.load(folder / f"checkpoint-{r}.pt", weights_only=True) for r in (1 - rank, rank))
    refused = ""
    try:
        optimizer.load_state_dict(other[1])
    except ValueError as error:
        refused = str(error)
    model.load_state_dict(mine[0])
    optimizer.load_state_dict(mine[1])
    for step in range(4, 8):
        gradients(model, step, rank)
        optimizer.step()
    optimizer.close()
    return straight, weights(model), refused


def test_every_rank_resumes_from_its_own_checkpoint_bit_for_bit(tmp_path):
    for rank, (straight, resumed, refused) in enumerate(run_ranks(_resumed, RANKS, tmp_path, tmp_path)):
        assert torch.equal(straight, resumed)
        assert f"has rank {1 - rank}, this one has {rank}" in refused


def _unused(rank):
    model = network()
    optimizer = CompressedSGD(model.parameters(), 0.1, FEEDBACKS["ef14"], timeout_s=60)
    for step in range(4):
        gradients(model, step, rank)
        if rank == 1:
            model[0].weight.grad = None
        optimizer.step()
    optimizer.close()
    return weights(model), model[0].weight.detach()


def test_a_gradient_that_one_rank_lacks_is_zeros_there(tmp_path):
    first, second = run_ranks(_unused, RANKS, tmp_path)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], network()[0].weight)


def _unlike(rank, what):
    parameter = nn.Parameter(torch.zeros(10 + (rank if what == "parameters" else 0), 100))
    try:
        CompressedSGD([parameter], 0.1 + (rank if what == "settings" else 0), timeout_s=60)
    except ValueError as error:
        return str(error)
    return "accepted"


@pytest.mark.parametrize("what", ["parameters", "settings"])
def test_ranks_that_differ_are_refused_on_every_rank(what, tmp_path):
    for message in run_ranks(_unlike, RANKS, tmp_path, what):
        assert "the ranks differ in " in message
        assert (
            "segment " if what == "parameters" else "lr of group 0: 1.1 on rank 1, 0.1 on rank 0"
        ) in message


def _drifting(rank):
    model = network()
    optimizer = CompressedSGD(model.parameters(), 0.1, check_replicas_every=2, timeout_s=60)
    for step in range(4):
        gradients(model, step, rank)
        optimizer.step()
    optimizer.check_replicas()
    if rank == 1:
        with torch.no_grad():
            list(model.parameters())[2][0, 0] += 1.0
    gradients(model, 4, rank)
    optimizer.step()
    gradients(model, 5, rank)
    with pytest.raises(laconic.ExchangeError, match="'2' is the first parameter that differs, on rank 1"):
        optimizer.step()
    optimizer.close()


def test_replicas_that_drift_are_noticed(tmp_path):
    run_ranks(_drifting, 2, tmp_path)


def _frozen_rank(rank):
    """Weights of a model that every rank has drawn for itself, partly frozen."""
    found = []
    for local in (False, True):
        torch.manual_seed(rank)
        model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
        model[0].requires_grad_(False)
        model.scale = nn.Parameter(torch.tensor(float(rank)), requires_grad=False)
        model.codes = nn.Parameter(torch.full((3,), rank, dtype=torch.int8), requires_grad=False)
        model.wave = nn.Parameter(torch.full((3,), complex(rank, 1)), requires_grad=False)
        if local:
            inner = torch.optim.SGD(model.parameters(), 0.1)
            optimizer = laconic.optim.LocalSteps(inner, 2, timeout_s=30)
        else:
            optimizer = CompressedAdamW(model.parameters(), 0.01, timeout_s=30)
        for step in range(4):
            optimizer.zero_grad()
            x = torch.randn(4, 32, generator=torch.Generator().manual_seed(10 * step + rank))
            model(x).square().mean().backward()
            optimizer.step()
        optimizer.close()
        found.append({name: each.clone() for name, each in model.state_dict().items()})
    return found


def test_frozen_parameters_are_rank_0s_too(tmp_path):
    for first, second in zip(*run_ranks(_frozen_rank, 2, tmp_path), strict=True):
        for name, value in first.items():
            assert torch.equal(value, second[name]), name


def _frozen_elsewhere_rank(rank):
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[0].requires_grad_(False)
    parameters = model.parameters() if rank else model[1].named_parameters()
    names = [(f"1.{name}", p) for name, p in parameters] if not rank else list(model.named_parameters())
    with pytest.raises(ValueError, match=r"frozen parameter '0\.weight'"):
        CompressedAdamW(names, 0.01, timeout_s=30)


def test_frozen_parameters_that_differ_by_rank_are_named(tmp_path):
    run_ranks(_frozen_elsewhere_rank, 2, tmp_path)
