"""Golden hashes of parameters that optimisers and the DDP hook move on two real ranks, on given gradients."""

import sys
from pathlib import Path

import torch
from golden import SEED, hash_of, numbers
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.append(str(Path(__file__).parents[1]))

from processes import run_ranks

import laconic as lc
from laconic.kernels import Stream
from laconic.optim import CompressedAdamW, CompressedSGD

RANKS = 2
STEPS = 4
SIGNS = lc.TopK(0.1) >> lc.ScaledSign()
FOUR_BITS = lc.TopK(0.1) >> lc.BlockQuantizer(bits=4, block=64)
ADAM = {"lr": 0.125, "eps": 0.5, "seed": SEED}
BETA_2 = 0.75
"""Its powers up to the fourth are exact."""
SHAPES = {
    "first.weight": ((40, 50), torch.float32),
    "first.bias": ((50,), torch.float32),
    "second.weight": ((30, 40), torch.float32),
    "gain": ((3,), torch.float32),
    "half.weight": ((24, 32), torch.bfloat16),
    "third.weight": ((100, 70), torch.float32),
}

OPTIMIZERS = {
    "CompressedAdamW, EF14 with signs": lambda p: CompressedAdamW(
        p, feedback=lc.EF14(SIGNS), betas=(0.0, BETA_2), clip=None, weight_decay=0.25, **ADAM
    ),
    "CompressedAdamW, EF21, beta_1": lambda p: CompressedAdamW(
        p, feedback=lc.EF21(lc.TopK(0.1)), betas=(0.5, BETA_2), clip=1e6, **ADAM
    ),
    "CompressedSGD, EF14 with 4 bits, exact": lambda p: CompressedSGD(
        p, 0.5, lc.EF14(FOUR_BITS), weight_decay=0.25, exact=True, seed=SEED
    ),
    "CompressedSGD, EF21 with seeded Rand-k, momentum": lambda p: CompressedSGD(
        p, 0.5, lc.EF21(lc.RandK(0.2).contractive()), momentum=0.5, clip=2.0, seed=SEED
    ),
}
HOOKS = {
    "hook, EF21 bfloat16": (lc.EF21(lc.TopK(0.1) >> lc.Cast(torch.bfloat16)), {}),
    "hook, EF14 with signs, clip": (lc.EF14(SIGNS), {"clip": 1.5}),
    "hook, EF21+, dense start": (lc.EF21Plus(lc.TopK(0.1)), {"start_iter": 1}),
}
NAMES = [*OPTIMIZERS, *HOOKS]


def tensors(round: int, node: int) -> dict[str, torch.Tensor]:
    """A tensor of each parameter's shape and dtype."""
    return {
        name: numbers(torch.Size(shape).numel(), Stream(SEED, round, node, i)).view(shape).to(dtype)
        for i, (name, (shape, dtype)) in enumerate(SHAPES.items())
    }


def of_lasting_size(round: int, node: int) -> dict[str, torch.Tensor]:
    """The same with few bits and magnitudes that stay, while signs change.

    Adam's corrected second moment is then an exact square, so that its root is the same on every machine:
    PyTorch's square root is not correctly rounded.
    """
    found = {}
    for i, (name, now) in enumerate(tensors(round, node).items()):
        size = (
            numbers(now.numel(), Stream(SEED, 1002, node, i), coarse=True).abs().view(now.shape).to(now.dtype)
        )
        found[name] = torch.where(now < 0, 0.0 - size, size)
    return found


class Given(nn.Module):
    """Its loss has the gradients that it is given."""

    def __init__(self):
        super().__init__()
        named = tensors(1001, 0)
        self.names = list(named)
        self.values = nn.ParameterList(nn.Parameter(value) for value in named.values())

    def forward(self, gradients):
        return sum((p * gradients[name]).sum() for name, p in zip(self.names, self.values, strict=True))


def _hashed(parameters):
    return hash_of(torch.cat([p.detach().reshape(-1).float() for p in parameters]))


def _optimizer(rank, make):
    parameters = {name: nn.Parameter(value) for name, value in tensors(1001, 0).items()}
    optimizer = make(list(parameters.items()))
    gradients = of_lasting_size if isinstance(optimizer, CompressedAdamW) else tensors
    found = []
    for step in range(STEPS):
        for name, gradient in gradients(step, rank).items():
            parameters[name].grad = gradient
        optimizer.step()
        found.append(_hashed(parameters.values()))
    optimizer.close()
    return {"parameters": " ".join(found)}


def _hook(rank, feedback, settings):
    model = DistributedDataParallel(Given(), bucket_cap_mb=0.01)
    state = lc.ddp.CommState(feedback, model=model, seed=SEED, **settings)
    model.register_comm_hook(state, lc.ddp.hook)
    found = []
    for step in range(STEPS):
        model.zero_grad()
        model(tensors(step, rank)).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(p - p.grad * 0.5)
        found.append(_hashed(model.parameters()))
    state.close()
    return {"parameters": " ".join(found)}


def _all(rank):
    found = {name: _optimizer(rank, make) for name, make in OPTIMIZERS.items()}
    found |= {name: _hook(rank, *arguments) for name, arguments in HOOKS.items()}
    return found


def hashes(folder: Path) -> dict[str, dict[str, str]]:
    """By name; the ranks hold the same parameters."""
    first, *others = run_ranks(_all, RANKS, folder, timeout=200)
    assert all(other == first for other in others), "the replicas differ"
    return {f"2 ranks: {name}": found for name, found in first.items()}
