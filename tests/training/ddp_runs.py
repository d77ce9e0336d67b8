"""A small training run under DDP, and the same written down in one process with senders and receivers."""

import copy
import dataclasses

import torch
from states import segments_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic

FEEDBACKS = {
    "dcgd": laconic.DCGD(laconic.TopK(0.2)),
    "ef14": laconic.EF14(laconic.TopK(0.05)),
    "ef14-random": laconic.EF14((laconic.TopK(0.1) >> laconic.RandomDithering(8, 2)).contractive()),
    "ef21": laconic.EF21(laconic.TopK(0.05)),
    "ef21-random": laconic.EF21(laconic.RandK(0.1).contractive()),
    "ef21+": laconic.EF21Plus(laconic.TopK(0.05) >> laconic.ScaledSign()),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(0.05), eta=0.3),
}
WIDTH = 64


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(WIDTH, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, WIDTH)
    return nn.Sequential(*layers).to(dtype)


def loss_of(model, step, rank, micro=0):
    """The loss on this rank's own batch."""
    seed = 10_000 * micro + 100 * step + rank
    dtype = next(model.parameters()).dtype
    x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return (model(x) - x.roll(1, -1)).square().mean()


def weights(model):
    return torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def same(a, b):
    """Whether two states are alike, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def memories(state):
    return copy.deepcopy(segments_of(state.state_dict()["exchange"]))


def wrapped(model, cap=25, **options):
    return DistributedDataParallel(model, bucket_cap_mb=cap, **options)


def start(model, feedback, cap=25, ddp=None, **settings):
    """The model under DDP with the hook, the state, and a list of the buckets' indices as they come."""
    model = wrapped(model, cap, **(ddp or {}))
    state = laconic.ddp.CommState(feedback, model=model, timeout_s=30, **settings)
    seen = []

    def counting(state, bucket):
        seen.append(bucket.index())
        return laconic.ddp.hook(state, bucket)

    model.register_comm_hook(state, counting)
    return model, state, seen


def train(rank, feedback, steps, *, cap=25.0, ddp=None, dtype=torch.float32, micro=1, wrap=None, **settings):
    """Final weights, memories, and the number of buckets in the last step."""
    model, state, seen = start(network(dtype), feedback, cap, ddp, **settings)
    run = model if wrap is None else wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(micro - 1):
            with model.no_sync():
                loss_of(run, step, rank, part).backward()
        seen.clear()
        loss_of(run, step, rank, micro - 1).backward()
        optimizer.step()
    result = weights(model), memories(state), len(seen)
    state.close()
    return result


def simulate(
    feedback, steps, ranks, *, dtype=torch.float32, micro=1, methods=None, clip=None, exact=False, seed=0
):
    """The same without DDP, hook or exchange: what the documentation says, written down.

    Args:
        methods: the method of each step, None where it is dense.
    """
    model = network(dtype)
    parameters = dict(model.named_parameters())
    small = [name for name, p in parameters.items() if p.dim() == 1]
    layout = laconic.Layout.of(parameters, **{"exact" if exact else "bfloat16": small})
    methods = methods or [feedback] * steps
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held, ends = None, None
    for step in range(steps):
        each = []
        for rank in range(ranks):
            model.zero_grad()
            for part in range(micro):
                loss_of(model, step, rank, part).backward()
            g = gradient(model).float()
            if clip is not None:
                parts = [g[s.offset : s.end] for s in layout.segments]
                norm = sum(float(laconic.kernels.squared_norm(part)) for part in parts) ** 0.5
                g = g * min(1.0, clip / norm)
            each.append(g)
        method = methods[step]
        if method is None:
            estimate = torch.zeros(layout.d)
            for g in each:
                estimate = estimate + g * (1.0 / ranks)
        else:
            if hasattr(method, "init"):
                method = dataclasses.replace(method, init="bfloat16")
            if method != held:
                made = [method.sender(layout, node=rank, seed=seed) for rank in range(ranks)]
                made.append(method.receiver(layout, ranks))
                for new, old in zip(made, ends or (), strict=False):
                    new.load_state_dict(old.state_dict())
                held, ends = method, made
            estimate = ends[-1].receive([s.send(g) for s, g in zip(ends, each, strict=False)])
        for segment in layout.segments:
            p = parameters[segment.name]
            p.grad = estimate[segment.offset : segment.end].view(p.shape).to(dtype)
        optimizer.step()
    return weights(model)
