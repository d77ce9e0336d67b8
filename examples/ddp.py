"""Train under DDP with compressed gradients: the five lines marked with an arrow are all that changes.

    torchrun --nproc-per-node 2 examples/ddp.py --steps 100

Add --dense to see plain DDP.
"""

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import laconic  # <-


def batch(teacher: nn.Module, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """This rank's share of the step's data."""
    generator = torch.Generator().manual_seed(1_000_000 * rank + step)
    x = torch.randn(256, 128, generator=generator)
    with torch.no_grad():
        return x, teacher(x)


def main() -> None:
    """Learn what a random network does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dense", action="store_true", help="plain DDP, for comparison")
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 32))
    model = DistributedDataParallel(nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, 32)))
    if not options.dense:
        feedback = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())  # <-
        state = laconic.ddp.CommState(feedback, model=model)  # <-
        model.register_comm_hook(state, laconic.ddp.hook)  # <-
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    for step in range(options.steps):
        x, y = batch(teacher, step, rank)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        if rank == 0 and (step + 1) % 20 == 0:
            print(f"step {step + 1:>4}  loss {loss.item():.4f}")

    if not options.dense:
        stats = state.stats()
        if rank == 0 and stats.steps:
            sent = stats.bytes_sent / stats.steps
            print(f"{sent:,.0f} bytes sent a step, {100 * stats.ratio_to_bf16:.1f} % of a bf16 all-reduce")
        state.close()  # <-
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
