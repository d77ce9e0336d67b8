"""Train a GPT-2-like model of bytes from scratch on a text file, under torchrun.

    torchrun --nproc-per-node 2 examples/byte_gpt.py book.txt --steps 500 --checkpoint checkpoint
    torchrun --nproc-per-node 2 examples/byte_gpt.py book.txt --optimizer local --every 4

Run it again with more steps, and it goes on from the checkpoint, bit for bit. Every rank saves its own file,
because moments and memories differ by rank. The learning rate is that of dense AdamW.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

import laconic


class Block(nn.Module):
    """Pre-norm attention and perceptron, as GPT-2's."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the layers."""
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) to the same."""
        shape = (*x.shape[:2], self.heads, -1)
        q, k, v = (each.view(shape).transpose(1, 2) for each in self.attention(self.norm1(x)).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class ByteGPT(nn.Module):
    """GPT-2's layout on bytes, with tied embeddings."""

    def __init__(self, width: int, layers: int, context: int) -> None:
        """Make the layers; GPT-2's initialisation."""
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, max(1, width // 64)) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(("project.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) int64 to logits (batch, time, 256)."""
        hidden = self.bytes(x) + self.places.weight[: x.shape[1]]
        return functional.linear(self.norm(self.blocks(hidden)), self.bytes.weight)


def batch(text: Tensor, step: int, rank: int, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """This rank's share of the step's data: places of the text that follow from step and rank."""
    generator = torch.Generator().manual_seed(1_000_000 * rank + step)
    starts = torch.randint(len(text) - options.context, (options.batch, 1), generator=generator)
    found = text[starts + torch.arange(options.context + 1)].long()
    return found[:, :-1], found[:, 1:]


def make_optimizer(
    model: nn.Module, options: argparse.Namespace
) -> laconic.optim.CompressedAdamW | laconic.optim.LocalSteps:
    """CompressedAdamW with 1 % in one bit, or AdamW with an exchange every few steps."""
    named = list(model.named_parameters())
    if options.optimizer == "adamw":
        return laconic.optim.CompressedAdamW(named, options.lr, weight_decay=0.0, dense_lr=True)
    # Nodes step on their own, noisier gradients: the root of their number here, too.
    lr = options.lr * math.sqrt(dist.get_world_size())
    inner = torch.optim.AdamW(named, lr, betas=(0.9, 0.95), weight_decay=0.0)
    return laconic.optim.LocalSteps.sparse_loco(inner, options.every)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="the file to learn")
    parser.add_argument("--optimizer", choices=("adamw", "local"), default="adamw")
    parser.add_argument("--every", type=int, default=4, help="local steps between exchanges")
    parser.add_argument("--steps", type=int, default=500, help="in all, those of the checkpoint included")
    parser.add_argument("--lr", type=float, default=1e-3, help="of dense AdamW")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="sequences a rank and step")
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, help="folder for a file of each rank")
    return parser.parse_args()


def main() -> None:
    """Train, and print the loss."""
    options = parsed()
    text = torch.frombuffer(bytearray(options.text.read_bytes()), dtype=torch.uint8)
    if len(text) <= options.context:
        raise SystemExit(f"{options.text} has {len(text)} bytes: it needs more than --context")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = ByteGPT(options.width, options.layers, options.context)
    optimizer = make_optimizer(model, options)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=20)

    start, file = 0, None
    if options.checkpoint is not None:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
        file = options.checkpoint / f"rank{rank}.pt"
        if file.exists():
            saved = torch.load(file, weights_only=True)
            start = saved["step"]
            for name, part in (("model", model), ("optimizer", optimizer), ("warm_up", warm_up)):
                part.load_state_dict(saved[name])

    for step in range(start, options.steps):
        x, y = batch(text, step, rank, options)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        warm_up.step()
        if rank == 0 and (step + 1) % options.log_every == 0:
            print(f"step {step + 1:>5}  loss {loss.item():.4f}")

    if file is not None:
        states = {"model": model, "optimizer": optimizer, "warm_up": warm_up}
        state = {name: part.state_dict() for name, part in states.items()}
        torch.save({"step": max(start, options.steps), **state}, file)
    sent = optimizer.stats().bytes_sent
    if rank == 0 and options.steps > start:
        print(f"{sent / (options.steps - start):,.0f} bytes sent a step")
    optimizer.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
