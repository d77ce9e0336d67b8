"""Part 6: a transformer as large as GPT-2 small, on bytes: loss and time, dense and compressed."""

import sysconfig
import time
from pathlib import Path

import torch
from part3_times import clock
from torch import nn
from torch.nn import functional

import laconic

FRACTION = 0.01


class Block(nn.Module):
    """Causal attention, then a two-layer network."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Model(nn.Module):
    """Predicts the next byte."""

    def __init__(self, width, layers, length):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, max(1, width // 64)) for _ in range(layers))
        self.head = nn.Linear(width, 256, bias=False)

    def forward(self, text):
        x = self.bytes(text) + self.places.weight[: text.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.head(functional.layer_norm(x, x.shape[-1:]))


def main(settings):
    """A row for each optimiser; each has half of the time."""
    device = settings.device(stand_in=False)
    width, layers, length, batch = settings.choose((768, 12, 512, 32), (768, 12, 512, 16), (32, 1, 16, 4))
    text = torch.frombuffer(bytearray(corpus()), dtype=torch.uint8).to(device)
    most = settings.choose(10_000, 10_000, 3)
    steps = None
    for name in ("AdamW, fused", f"CompressedAdamW, {100 * FRACTION:g} % in 1 bit"):
        # The second runs as many steps as the first, so that losses can be compared.
        until = time.monotonic() + 0.42 * settings.left if steps is None else settings.deadline - 5
        torch.manual_seed(0)
        model = Model(width, layers, length).to(device)
        if steps is None:
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
        else:
            feedback = laconic.EF14(laconic.TopK(FRACTION) >> laconic.ScaledSign())
            optimizer = laconic.optim.CompressedAdamW(model.parameters(), lr=3e-4, feedback=feedback)
        losses, times = train(model, optimizer, text, length, batch, min(most, steps or most), until, device)
        steps = len(losses)
        last = losses[-max(1, steps // 10) :]
        settings.report(
            optimizer=name,
            parameters=sum(p.numel() for p in model.parameters()),
            steps=steps,
            loss=sum(last) / len(last),
            ms_a_step=1e3 * sorted(times)[len(times) // 2],
            ok=last[-1] < 1.2 * losses[0],
        )
        del model, optimizer


def train(model, optimizer, text, length, batch, steps, until, device):
    """Losses and times of steps, until there were enough or time is up."""
    generator = torch.Generator().manual_seed(1)
    losses, times, offsets = [], [], torch.arange(length + 1, device=device)
    while len(losses) < steps and (not losses or time.monotonic() < until):
        began = clock(device)
        starts = torch.randint(len(text) - length - 1, (batch, 1), generator=generator).to(device)
        windows = text[starts + offsets].long()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(windows[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        times.append(clock(device) - began)
    return [float(loss) for loss in losses], times


def corpus(size=8_000_000):
    """Text that every Python brings: the sources of its library."""
    found = b""
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found += file.read_bytes()
        if len(found) > size:
            break
    return found
