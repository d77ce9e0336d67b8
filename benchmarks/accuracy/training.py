"""One run of the accuracy study: a byte-level transformer on simulated nodes."""

import math
import sysconfig
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from local import LocalNodes, adamw
from stages import Spec
from torch import Tensor, nn
from torch.nn import functional

import laconic
from laconic.lab import train

CONTEXT = 64
SYMBOLS = 128
VALIDATION = 512
"""Sequences of the validation set."""
WARM_UP, FINAL = 0.05, 0.1


class Transformer(nn.Module):
    """Two layers without biases and gains, so that every parameter is compressed."""

    def __init__(self, width: int, layers: int = 2) -> None:
        """Weights of the usual sizes; those that write to the shortcut are smaller."""
        super().__init__()
        self.heads = width // 32
        self.symbols = nn.Embedding(SYMBOLS, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": nn.Linear(width, 3 * width, bias=False),
                    "out": nn.Linear(width, width, bias=False),
                    "up": nn.Linear(width, 4 * width, bias=False),
                    "down": nn.Linear(4 * width, width, bias=False),
                }
            )
            for _ in range(layers)
        )
        self.head = nn.Linear(width, SYMBOLS, bias=False)
        nn.init.normal_(self.symbols.weight, std=0.5)
        nn.init.normal_(self.places.weight, std=0.1)
        for layer in self.layers:
            for name, module in layer.items():
                std = module.in_features**-0.5
                nn.init.normal_(
                    module.weight, std=std / (2 * layers) ** 0.5 if name in ("out", "down") else std
                )
        nn.init.normal_(self.head.weight, std=0.5 * width**-0.5)

    def forward(self, text: Tensor) -> Tensor:
        """int64 (n, length) to logits (n, length, symbols)."""
        x = self.symbols(text) + self.places(torch.arange(text.shape[1]))
        n, length, width = x.shape
        for layer in self.layers:
            qkv = layer["qkv"](functional.rms_norm(x, (width,))).view(n, length, 3, self.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer["out"](seen.transpose(1, 2).reshape(n, length, width))
            x = x + layer["down"](functional.gelu(layer["up"](functional.rms_norm(x, (width,)))))
        return self.head(functional.rms_norm(x, (width,)))


@cache
def corpus() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Training and validation text, and the training text by directories, for each of four nodes."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    held, groups = [], {}
    for path in files:
        name = path.relative_to(root)
        text = path.read_bytes()
        if crc32(str(name).encode()) % 20 == 0:
            held.append(text)
        else:
            groups.setdefault(name.parts[0] if len(name.parts) > 1 else ".", []).append(text)
    shares = [[] for _ in range(4)]
    for group in sorted(groups.values(), key=lambda texts: (-sum(map(len, texts)), texts[0])):
        min(shares, key=lambda texts: sum(map(len, texts))).extend(group)
    return (
        _symbols([text for share in shares for text in share]),
        _symbols(held),
        [_symbols(share) for share in shares],
    )


def _symbols(texts: list[bytes]) -> Tensor:
    joined = torch.frombuffer(bytearray(b"\n".join(texts)), dtype=torch.uint8)
    return joined.clamp(max=SYMBOLS - 1)


def loss_of(model: nn.Module, text: Tensor) -> Tensor:
    """Mean cross-entropy, nats a byte."""
    logits = model(text[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


def cut(text: Tensor, starts: Tensor) -> Tensor:
    """int64 (starts, CONTEXT + 1)."""
    return text[starts[:, None] + torch.arange(CONTEXT + 1)].long()


@torch.no_grad()
def validation_loss(model: nn.Module) -> float:
    """On the same sequences for all runs."""
    text = corpus()[1]
    starts = torch.randint(len(text) - CONTEXT - 1, (VALIDATION,), generator=torch.Generator().manual_seed(5))
    return float(torch.stack([loss_of(model, cut(text, part)) for part in starts.split(64)]).mean())


def learning_rate(spec: Spec, step: int) -> float:
    """Linear warm-up, then a cosine."""
    warm = WARM_UP * spec.steps
    if step < warm:
        return spec.lr * (step + 1) / warm
    return spec.lr * (
        FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (spec.steps - warm)))
    )


def _compressor(spec: Spec, density: float) -> Any:
    if spec.selection == "segments":
        return laconic.TopK(density)
    return laconic.BlockTopK(max(1, round(density * 4096)), 4096)


def _optimizer(spec: Spec, model: nn.Module) -> tuple[Any, dict[str, Any]]:
    one_bit = laconic.ScaledSign()
    decay = {"weight_decay": spec.weight_decay}
    if spec.method == "dense":
        betas = (spec.beta1, spec.beta2)
        optimizer = torch.optim.AdamW(model.parameters(), spec.lr, betas, fused=True, **decay)
        return optimizer, {"feedback": laconic.DCGD(laconic.Identity()), "clip": 0.5}
    if spec.method == "adamw":
        feedback = laconic.EF14(_compressor(spec, spec.density) >> one_bit)
        schedule = None
        if spec.first:
            schedule = {
                0: laconic.EF14(_compressor(spec, 0.01) >> one_bit),
                round(spec.first * spec.steps): feedback,
            }
        betas = (spec.beta1, spec.beta2)
        return laconic.optim.CompressedAdamW(
            model.parameters(), spec.lr, feedback, betas, clip=0.5, density=schedule, **decay
        ), {}
    optimizer = torch.optim.SGD(model.parameters(), spec.lr, momentum=0.9, **decay)
    if spec.method == "ef14-sgd":
        return optimizer, {"feedback": laconic.EF14(_compressor(spec, spec.density) >> one_bit), "clip": 0.5}
    if spec.method == "ef21-sgdm":
        optimizer = torch.optim.SGD(model.parameters(), spec.lr, **decay)
        compressor = _compressor(spec, spec.density) >> laconic.Cast(torch.bfloat16)
        return optimizer, {"feedback": laconic.EF21SGDM(compressor, eta=0.1), "clip": 0.5}
    raise ValueError(f"unknown method {spec.method!r}")


def _local_nodes(spec: Spec, model: nn.Module) -> LocalNodes:
    compressor = _compressor(spec, spec.density) >> laconic.BlockQuantizer(2)
    make = adamw(spec.lr, (spec.beta1, spec.beta2), spec.weight_decay)
    return LocalNodes(model, spec.nodes, laconic.EF14(compressor, decay=0.95), make, clip=0.5)


def run(spec: Spec, on_step: Callable[[int], None]) -> dict[str, Any]:
    """Train, and say how it went: losses, bits a parameter and step, seconds of processor time."""
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    model = Transformer(spec.width)
    whole, _, shares = corpus()
    generator = torch.Generator().manual_seed(1000 + spec.seed)
    nodes = _local_nodes(spec, model) if spec.method == "local" else None
    optimizer, settings = (None, {}) if nodes else _optimizer(spec, model)
    optimizers = nodes.optimizers if nodes else [optimizer]
    curve: list[tuple[int, float]] = []
    begin = time.process_time()

    def data(_step: int, node: int) -> Tensor:
        text = shares[node % 4] if spec.split == "directories" else whole
        return cut(text, torch.randint(len(text) - CONTEXT - 1, (spec.batch,), generator=generator))

    def set_rate(step: int) -> None:
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = learning_rate(spec, step)

    def after(step: int, loss: float) -> None:
        set_rate(step + 1)
        if (step + 1) % 250 == 0:
            curve.append((step + 1, validation_loss(model)))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        on_step(step)

    set_rate(0)
    if nodes:
        losses = []
        for step in range(spec.steps):
            batches = [data(step, node) for node in range(spec.nodes)]
            losses.append(nodes.step([partial(loss_of, text=batch) for batch in batches]))
            if (step + 1) % spec.every == 0:
                nodes.exchange()
            after(step, losses[-1])
        bits, last = nodes.bits, losses[-100:]
    else:
        result = train(
            model,
            optimizer,
            nodes=spec.nodes,
            data=data,
            loss=loss_of,
            steps=spec.steps,
            on_step=after,
            **settings,
        )
        bits, last = float(result.bits[-1]), result.losses[-100:].tolist()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if hasattr(optimizer, "close"):
        optimizer.close()
    return {
        "validation": validation_loss(model),
        "training": sum(last) / len(last),
        "curve": curve,
        "bits": bits / parameters / spec.steps,
        "parameters": parameters,
        "seconds": time.process_time() - begin,
    }
