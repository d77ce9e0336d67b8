"""Models, batches and losses of ``laconic bench step``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.demo._model import ByteTransformer
from laconic.demo._text import read_corpus, share, windows

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Workload:
    """A model and its batches.

    Args:
        build: makes the model, from the same first weights every time.
        batches: an endless sequence for one rank of so many, alike for all methods.
        loss: of the model's output for a batch.
    """

    build: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterator[Batch]]
    loss: Callable[[nn.Module, Batch], Tensor]


def _perceptron(width: int, layers: int, batch: int) -> Workload:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            *(module for _ in range(layers) for module in (nn.Linear(width, width), nn.ReLU()))
        )

    def batches(rank: int, ranks: int) -> Iterator[Batch]:  # noqa: ARG001 - as the other workload's
        teacher = torch.randn(width, width, generator=torch.Generator().manual_seed(1)) / width**0.5
        generator = torch.Generator().manual_seed(2 + rank)
        while True:
            x = torch.randn(batch, width, generator=generator)
            yield x, functional.relu(x @ teacher)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return functional.mse_loss(model(batch[0]), batch[1])

    return Workload(build, batches, loss)


def _transformer(width: int, layers: int, batch: int, context: int) -> Workload:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return ByteTransformer(width, layers)

    def batches(rank: int, ranks: int) -> Iterator[Batch]:
        text = share(read_corpus()[0], rank, ranks)
        generator = torch.Generator().manual_seed(2 + rank)
        while True:
            starts = torch.randint(text.numel() - context, (batch,), generator=generator)
            yield windows(text, starts, context)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        text, following = batch
        return functional.cross_entropy(model(text).flatten(0, 1), following.flatten())

    return Workload(build, batches, loss)


WORKLOADS = {
    "mlp-10m": _perceptron(1580, 4, 64),
    "mlp-10m-batch-4": _perceptron(1580, 4, 4),
    "transformer-10m": _transformer(448, 4, 2, 48),
    "transformer-0.8m": _transformer(128, 4, 14, 64),
}
"""Batches are such that four ranks on two cores compute for about 150 ms a step. The perceptron's of 4 take
half of that, most of it to read and write parameters."""
