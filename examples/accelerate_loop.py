"""Train with Accelerate: compressed gradients under DDP, or CompressedAdamW without it.

    torchrun --nproc-per-node 2 examples/accelerate_loop.py --steps 60 --folder accelerate-out
    torchrun --nproc-per-node 2 examples/accelerate_loop.py --steps 60 --folder accelerate-out --optimizer

Run it again with more steps, and it goes on from what ``save_state`` has saved, bit for bit.
"""

import argparse
import zlib
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

import laconic
from laconic.integrations.accelerate import compress_gradients, prepare_without_ddp, save_every_rank

FEEDBACK = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())


def main() -> None:
    """Learn what a random network does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=60, help="steps in all, those of the checkpoint included"
    )
    parser.add_argument("--folder", type=Path, default=Path("accelerate-out"))
    parser.add_argument("--optimizer", action="store_true", help="CompressedAdamW, without DDP")
    options = parser.parse_args()

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    teacher = torch.randn(64, 16) / 8
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16))
    if options.optimizer:
        prepare_without_ddp(accelerator)
        source = laconic.optim.CompressedAdamW(model.named_parameters(), lr=4e-3)
        model, optimizer = accelerator.prepare(model, source)
        save_every_rank(accelerator, source)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        model, optimizer = accelerator.prepare(model, optimizer)
        source = compress_gradients(accelerator, model, FEEDBACK)

    start = 0
    if options.folder.exists():
        accelerator.load_state(options.folder)
        start = torch.load(options.folder / "step.pt")
    for step in range(start, options.steps):
        generator = torch.Generator().manual_seed(1_000_000 * accelerator.process_index + step)
        x = torch.randn(32, 64, generator=generator)
        loss = nn.functional.mse_loss(model(x), torch.tanh(x @ teacher))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.save_state(options.folder)
    if accelerator.is_main_process:
        torch.save(options.steps, options.folder / "step.pt")

    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    print(
        f"rank {accelerator.process_index}: loss {loss.item():.4f}, "
        f"{100 * source.stats().ratio_to_bf16:.1f} % of a bf16 all-reduce, "
        f"weights {zlib.crc32(weights.numpy().tobytes()):08x}"
    )
    source.close()
    accelerator.end_training()


if __name__ == "__main__":
    main()
