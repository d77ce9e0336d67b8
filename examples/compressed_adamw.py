"""Train with CompressedAdamW under torchrun: no DDP, one optimiser that also communicates.

    torchrun --nproc-per-node 2 examples/compressed_adamw.py --steps 100 --checkpoint checkpoint

Run it again with more steps, and it goes on from the checkpoint, bit for bit. Every rank saves its own
file, because moments and memories differ by rank.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import laconic


def batch(teacher: nn.Module, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """This rank's share of the step's data."""
    generator = torch.Generator().manual_seed(1_000_000 * rank + step)
    x = torch.randn(64, 128, generator=generator)
    with torch.no_grad():
        return x, teacher(x)


def main() -> None:
    """Learn what a random network does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=100, help="steps in all, those of the checkpoint included"
    )
    parser.add_argument("--checkpoint", type=Path, help="folder for a file of each rank")
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 32))
    torch.manual_seed(1 + rank)  # the optimiser sends rank 0's parameters to all
    model = nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, 32))

    # By default 1 % of the update, in one bit a number; lr is that of dense AdamW.
    optimizer = laconic.optim.CompressedAdamW(model.named_parameters(), lr=2e-3, dense_lr=True)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=1000)

    start, file = 0, None
    if options.checkpoint is not None:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
        file = options.checkpoint / f"rank{rank}.pt"
        if file.exists():
            saved = torch.load(file, weights_only=True)
            start = saved["step"]
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scheduler.load_state_dict(saved["scheduler"])

    for step in range(start, options.steps):
        x, y = batch(teacher, step, rank)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if rank == 0 and (step + 1) % 20 == 0:
            print(f"step {step + 1:>4}  loss {loss.item():.4f}")

    if file is not None:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"step": max(start, options.steps), **states}, file)
    stats = optimizer.stats()
    if rank == 0 and stats.steps:
        sent = stats.bytes_sent / stats.steps
        print(f"{sent:,.0f} bytes sent a step, {100 * stats.ratio_to_bf16:.1f} % of a bf16 all-reduce")
    optimizer.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
