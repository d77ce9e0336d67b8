"""Task of the accuracy study: a byte-level transformer on the source text of Python's standard library."""

import sysconfig
from functools import cache
from pathlib import Path
from zlib import crc32

import torch
from stages import Spec
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 64
SYMBOLS = 128
VALIDATION = 512
"""Sequences of the validation set."""


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


class Task:
    """Model, batches and losses of a run."""

    def __init__(self, spec: Spec) -> None:
        """The first weights follow from PyTorch's seed, the batches from the run's."""
        self.model: nn.Module = Transformer(spec.width)
        whole, _, shares = corpus()
        self._texts = shares if spec.split == "directories" else [whole]
        self._batch, self._generator = spec.batch, torch.Generator().manual_seed(1000 + spec.seed)

    def data(self, _step: int, node: int) -> Tensor:
        """The next batch of a node."""
        text = self._texts[node % len(self._texts)]
        return cut(text, torch.randint(len(text) - CONTEXT - 1, (self._batch,), generator=self._generator))

    loss = staticmethod(loss_of)

    def validation(self) -> float:
        """Loss on text of other files."""
        return validation_loss(self.model)
