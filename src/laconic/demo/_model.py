"""A small transformer that predicts the next byte."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 64


class Block(nn.Module):
    """Attention, then a two-layer network, each behind a norm and around a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        """Four matrices, of which those that write to the shortcut start as zeros."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., length, width) to the same."""
        n, length, width = x.shape
        qkv = self.qkv(functional.rms_norm(x, (width,))).view(n, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        more: Tensor = self.down(functional.gelu(self.up(functional.rms_norm(x, (width,)))))
        return x + more


class ByteTransformer(nn.Module):
    """Three blocks of width 128 over 64 bytes of context: 663,552 parameters, all in matrices.

    Without biases and gains, so that no parameter is exempt from compression and the byte counts are
    those of the method alone; in a model of this width they would be an uncommonly large share.
    """

    def __init__(self, width: int = 128, layers: int = 3, heads: int = 4) -> None:
        """Small embeddings, blocks that start as shortcuts: where the dense baseline did best."""
        super().__init__()
        self.bytes = nn.Embedding(256, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, 256, bias=False)
        nn.init.normal_(self.bytes.weight, std=0.1)
        nn.init.normal_(self.places.weight, std=0.1)

    def forward(self, text: Tensor) -> Tensor:
        """int64 (n, length) to logits (n, length, 256)."""
        x = self.bytes(text) + self.places(torch.arange(text.shape[-1]))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(functional.rms_norm(x, (x.shape[-1],)))
        return logits


def loss_of(model: nn.Module, text: Tensor, following: Tensor) -> Tensor:
    """Mean cross-entropy in nats a byte."""
    return functional.cross_entropy(model(text).flatten(0, 1), following.flatten())
