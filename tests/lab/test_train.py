"""Training on simulated nodes: equal to real ranks bit for bit, to the lab's methods, and resumable."""

import math

import pytest
import torch
from comparing import same
from processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.lab import NodeByNode, Quadratic, TrainingSimulation, train
from laconic.optim import CompressedAdamW, CompressedSGD, CompressedSignum

RANKS, STEPS = 2, 6
TOP = laconic.TopK(0.1)
DITHERED = TOP >> laconic.RandomDithering(8, 2).contractive()


class Given(nn.Module):
    """A model whose gradients are given: the loss is the sum of products of parameters and inputs."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.ones(s)) for s in ((40, 30), (30,), (20, 40), (3, 3))]
        )
        self.weights.append(nn.Parameter(torch.ones(30, 30, dtype=torch.bfloat16)))

    def forward(self, inputs):
        return sum((w * x).sum().float() for w, x in zip(self.weights, inputs, strict=True))


def inputs(step, node):
    generator = torch.Generator().manual_seed(100 * step + node)
    found = [torch.randn(w.shape, generator=generator).to(w.dtype) for w in Given().weights]
    if step == 3 and node == 1:
        found[2][0, 0] = math.inf
    return found


def loss(model, found):
    return model(found)


OPTIMIZERS = {
    "adamw, one bit": lambda p: CompressedAdamW(
        p, 0.01, laconic.EF14(TOP >> laconic.ScaledSign()), timeout_s=60
    ),
    "adamw, ef21, beta_1": lambda p: CompressedAdamW(
        p, 0.01, laconic.EF21(TOP), betas=(0.5, 0.9), clip=None, seed=3, timeout_s=60
    ),
    "sgd, dithering, momentum": lambda p: CompressedSGD(
        p, 0.1, laconic.EF14(DITHERED), momentum=0.5, clip=2.0, weight_decay=0.1, seed=5, timeout_s=60
    ),
    "signum, decay": lambda p: CompressedSignum(
        p, 0.01, laconic.EF14(TOP >> laconic.ScaledSign(), decay=0.99), weight_decay=0.1, timeout_s=60
    ),
    "adamw, residual in bfloat16": lambda p: CompressedAdamW(
        p, 0.01, laconic.EF14(TOP >> laconic.ScaledSign(), residual=torch.bfloat16), timeout_s=60
    ),
    "sgd, last norm": lambda p: CompressedSGD(
        p, 0.1, laconic.EF14(TOP), clip=2.0, clip_by="last", timeout_s=60
    ),
    "sgd, ef21+": lambda p: CompressedSGD(p, 0.1, laconic.EF21Plus(TOP), timeout_s=60),
}


def moments(state):
    return [
        {key: value.clone() for key, value in own.items() if key != "step"}
        for own in (state[p] for p in state)
    ]


def _optimizer_rank(rank):
    found = {}
    for name, make in OPTIMIZERS.items():
        model = Given()
        optimizer = make(model.parameters())
        for step in range(STEPS):
            optimizer.zero_grad()
            model(inputs(step, rank)).backward()
            optimizer.step()
        found[name] = [w.detach() for w in model.weights], moments(optimizer.state), optimizer.skipped
        optimizer.close()
    return found


def test_compressed_optimizers_equal_real_ranks(tmp_path):
    ranks = run_ranks(_optimizer_rank, RANKS, tmp_path)
    for name, make in OPTIMIZERS.items():
        model = Given()
        optimizer = make(model.parameters())
        result = train(model, optimizer, nodes=RANKS, data=inputs, loss=loss, steps=STEPS)
        simulation = result.simulation
        for rank, found in enumerate(ranks):
            weights, states, skipped = found[name]
            assert same(weights, [w.detach() for w in model.weights]), (name, rank)
            simulation._be(rank, None)
            assert same(states, moments(optimizer.state)), (name, rank)
            assert skipped == result.skipped == 1
        optimizer.close()


def _hook_rank(rank, clip):
    model = DistributedDataParallel(Given())
    state = laconic.ddp.CommState(laconic.EF21(DITHERED), model=model, clip=clip, seed=2, timeout_s=60)
    model.register_comm_hook(state, laconic.ddp.hook)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(inputs(step, rank)).backward()
        if state.stats().skipped == 0 or step != 3:  # what GradScaler would do
            optimizer.step()
    weights = [w.detach() for w in model.module.weights]
    state.close()
    return weights


@pytest.mark.parametrize("clip", [None, 3.0])
def test_an_ordinary_optimizer_equals_the_ddp_hook(clip, tmp_path):
    ranks = run_ranks(_hook_rank, RANKS, tmp_path, clip)
    model = Given()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    settings = {"feedback": laconic.EF21(DITHERED), "clip": clip, "seed": 2}
    train(model, optimizer, nodes=RANKS, data=inputs, loss=loss, steps=STEPS, **settings)
    for weights in ranks:
        assert same(weights, [w.detach() for w in model.weights])


class Turns(nn.Module):
    """A model whose second parameter is used in the first step alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.ones(20, 30)) for _ in range(2))

    def forward(self, x, first):
        return (self.a * x).sum() + (self.b * x).sum() if first else (self.a * x).sum()


def turns(step, node):
    generator = torch.Generator().manual_seed(10 * step + node)
    return torch.randn(20, 30, generator=generator), step == 0


def _turns_rank(rank):
    model = DistributedDataParallel(Turns(), find_unused_parameters=True)
    state = laconic.ddp.CommState(laconic.EF14(TOP), model=model, exempt=lambda *_: False, timeout_s=60)
    model.register_comm_hook(state, laconic.ddp.hook)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.5)
    for step in range(14):
        optimizer.zero_grad()
        model(*turns(step, rank)).backward()
        optimizer.step()
    weights = [w.detach() for w in model.parameters()]
    state.close()
    return weights


def test_a_parameter_that_no_node_uses_any_more_gets_what_its_memory_holds(tmp_path):
    ranks = run_ranks(_turns_rank, RANKS, tmp_path)
    model = Turns()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.5)
    seen = []
    train(
        model,
        optimizer,
        nodes=RANKS,
        data=turns,
        loss=lambda model, given: model(*given),
        steps=14,
        feedback=laconic.EF14(TOP),
        exempt=lambda *_: False,
        on_step=lambda *_: seen.append(model.b.detach().clone()),
    )
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[-2], seen[-1])  # all is sent: the optimiser skips the parameter, decay included
    for weights in ranks:
        assert same(weights, [w.detach() for w in model.parameters()])


@pytest.mark.parametrize(
    "feedback",
    [
        laconic.EF14(laconic.TopK(2)),
        laconic.EF21(laconic.RandK(2).contractive()),
        laconic.EF21Plus(laconic.TopK(1)),
        laconic.EF21SGDM(laconic.TopK(2), eta=0.5),
        laconic.DCGD(laconic.RandK(3)),
    ],
)
def test_sgd_on_a_convex_problem_equals_the_labs_methods(feedback):
    problem = Quadratic.example1()
    start = torch.linspace(-1, 2, problem.d, dtype=torch.float64)
    by_lab = NodeByNode(problem, feedback, start.clone(), stepsize=2.0**-6, seed=7)
    for _ in range(20):
        by_lab.advance(by_lab.gradients())
    x = nn.Parameter(start.clone())
    model = nn.ParameterList([x])
    optimizer = CompressedSGD([x], 2.0**-6, feedback, exempt=lambda name, p: False, seed=7)

    def gradient_of(model, node):
        x.grad = problem.node_gradient(node, x.detach())
        return 0.0

    train(
        model,
        optimizer,
        nodes=problem.nodes,
        data=lambda step, node: node,
        loss=gradient_of,
        steps=20,
    )
    assert torch.equal(x.detach(), by_lab.x)
    optimizer.close()


@pytest.mark.parametrize("name", [*OPTIMIZERS, "hook", "dense"])
def test_a_resumed_simulation_goes_on_bit_for_bit(name):
    def make(model):
        if name in OPTIMIZERS:
            return TrainingSimulation(model, OPTIMIZERS[name](model.parameters()), 3)
        feedback = laconic.EF14(DITHERED) if name == "hook" else None
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        return TrainingSimulation(model, optimizer, 3, feedback=feedback)

    def advance(simulation, model, steps):
        for step in steps:

            def backward(node, step=step):
                found = model(inputs(step, node))
                found.backward()
                return found.item()

            simulation.step(backward)

    model, twin = Given(), Given()
    whole, first, second = make(model), make(twin), None
    advance(whole, model, range(STEPS))
    advance(first, twin, range(4))
    other = Given()
    other.load_state_dict(twin.state_dict())
    second = make(other)
    second.load_state_dict(first.state_dict())
    advance(second, other, range(4, STEPS))
    assert same([w.detach() for w in model.weights], [w.detach() for w in other.weights])
    assert whole.bits == second.bits > 0
    for simulation in (whole, first, second):
        if name in OPTIMIZERS:
            simulation.optimizer.close()


def test_a_dense_mean_steps_with_the_mean_gradient():
    model, twin = nn.Linear(8, 4), nn.Linear(8, 4)
    twin.load_state_dict(model.state_dict())
    rows = torch.randn(4, 6, 8)
    optimizer, other = (torch.optim.AdamW(m.parameters(), 0.01) for m in (model, twin))
    train(
        model,
        optimizer,
        nodes=4,
        steps=3,
        data=lambda step, node: rows[node],
        loss=lambda m, x: m(x).square().mean(),
    )
    for _ in range(3):
        other.zero_grad()
        twin(rows.view(24, 8)).square().mean().backward()
        other.step()
    torch.testing.assert_close(model.weight, twin.weight)


def test_a_simulation_says_where_real_ranks_would_take_the_mean(caplog):
    model = nn.Linear(64, 64, bias=False)
    half = laconic.EF14(laconic.TopK(0.5))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    few = laconic.EF14(TOP)
    for feedback, topology, said in ((half, "auto", True), (half, "all-gather", False), (few, "auto", False)):
        caplog.clear()
        optimizer = CompressedSGD(model.parameters(), 0.1, feedback, topology=topology)
        TrainingSimulation(model, optimizer, 8)
        optimizer.close()
        assert ("8 real ranks would take the exact mean" in caplog.text) == said
    caplog.clear()
    TrainingSimulation(model, sgd, 8, feedback=few)
    assert not caplog.text
    TrainingSimulation(model, sgd, 8, feedback=half)
    assert "8 real ranks would take the exact mean" in caplog.text


def test_a_scheduler_counts_the_steps_of_a_simulation():
    model = nn.Linear(8, 4)
    with CompressedSGDs(model) as optimizer:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        data, loss_of = lambda *_: torch.ones(2, 8), lambda model, x: model(x).square().mean()
        train(
            model, optimizer, nodes=2, data=data, loss=loss_of, steps=3, on_step=lambda *_: scheduler.step()
        )
        assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3


def test_settings_that_do_not_fit():
    model = nn.Linear(8, 4)
    all_of_it = {
        "feedback": laconic.EF14(TOP),
        "exempt": lambda *_: False,
        "exact": True,
        "clip": 1.0,
        "seed": 0,
    }
    for name, value in all_of_it.items():
        with CompressedSGDs(model) as optimizer, pytest.raises(ValueError, match=f"its own {name}: set"):
            TrainingSimulation(model, optimizer, 2, **{name: value})
    with pytest.raises(ValueError, match="nodes must be at least 1"):
        TrainingSimulation(model, torch.optim.SGD(model.parameters(), 0.1), 0)


class CompressedSGDs:
    def __init__(self, model):
        self.optimizer = CompressedSGD(model.parameters(), 0.1)

    def __enter__(self):
        return self.optimizer

    def __exit__(self, *_):
        self.optimizer.close()
