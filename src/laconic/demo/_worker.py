"""Training loop of one node of the demo, with every method in turn."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.demo._methods import Method
from laconic.demo._model import CONTEXT, ByteTransformer, loss_of
from laconic.demo._text import even_starts, read_corpus, share, windows
from laconic.demo._trainer import make_trainer
from laconic.kernels import say_with

SEQUENCES = 4
"""Sequences a node and step."""


@dataclass(frozen=True)
class DemoSettings:
    """DemoSettings that all methods share.

    Args:
        steps: steps of each method.
        nodes: processes.
        seed: of the first weights and the order of the data, alike for all methods.
        curve: validation sequences of the loss curve.
        final: validation sequences of the last loss.
        points: points of the loss curve.
    """

    steps: int = 300
    nodes: int = 4
    seed: int = 0
    curve: int = 64
    final: int = 320
    points: int = 15


@dataclass(frozen=True)
class Run:
    """Losses, bytes and times of one method; the curve's lists start before the first step.

    Args:
        name: the method's.
        loss: validation loss at the end, nats a byte.
        steps: the steps of the curve.
        losses: validation losses of the curve, on fewer sequences.
        handed: bytes that a node has handed to collectives until then: the lengths of its messages.
        seconds: time spent until then without validation, the mean over nodes.
    """

    name: str
    loss: float
    steps: list[int]
    losses: list[float]
    handed: list[int]
    seconds: list[float]


Send = Callable[[dict[str, Any]], None]
"""Sends a step or a run to the parent process."""


def work(settings: DemoSettings, methods: tuple[Method, ...], put: Send) -> None:
    """Train with all methods, one after another, as one node of a group of processes.

    Args:
        settings: what all methods have in common.
        methods: which to run.
        put: sends to the parent process, as rank 0 does with each step and each run.
    """
    torch.set_num_threads(1)
    # Whichever process compiles says so to the parent, which has the terminal.
    say_with(lambda text: put({"note": text}))
    send = put if dist.get_rank() == 0 else _silent
    send({"note": "reading the text"})
    train, held = read_corpus()
    for method in methods:
        send({"note": f"warming up {method.name}"})
        _warm_up(method, train)
    for method in methods:
        run = train_with(method, settings, share(train, dist.get_rank(), settings.nodes), held, send)
        send({"run": asdict(run)})


def _warm_up(method: Method, text: Tensor) -> None:
    """Two steps on a model to throw away, for what is made at first use."""
    model = ByteTransformer()
    trainer = make_trainer(method, model)
    for _ in range(2):
        # Other batches on other ranks: equal ones look like gradients that were averaged already.
        starts = torch.arange(SEQUENCES) + SEQUENCES * dist.get_rank()
        torch.autograd.backward(loss_of(model, *windows(text, starts, CONTEXT)))
        trainer.step(method.lr)
    trainer.close()


def _silent(_: dict[str, Any]) -> None:
    pass


def train_with(method: Method, settings: DemoSettings, text: Tensor, held: Tensor, send: Send) -> Run:
    """Train one model with one method, the same weights and batches for all methods."""
    torch.manual_seed(settings.seed)
    model = ByteTransformer()
    draw = torch.Generator().manual_seed(1000 * settings.seed + dist.get_rank())
    trainer = make_trainer(method, model)
    every = max(1, settings.steps // settings.points)
    run = Run(method.name, 0.0, [0], [_validate(model, held, settings.curve)], [0], [0.0])
    spent = 0.0
    for step in range(1, settings.steps + 1):
        start = time.perf_counter()
        starts = torch.randint(text.numel() - CONTEXT - 1, (SEQUENCES,), generator=draw)
        model.zero_grad()
        torch.autograd.backward(loss_of(model, *windows(text, starts, CONTEXT)))
        trainer.step(method.lr * schedule(step, settings.steps))
        spent += time.perf_counter() - start
        if step % every == 0 or step == settings.steps:
            run.steps.append(step)
            run.losses.append(_validate(model, held, settings.curve))
            run.handed.append(trainer.handed())
            run.seconds.append(_mean(spent))
        send({"name": method.name, "step": step, "loss": run.losses[-1]})
    trainer.close()
    return replace(run, loss=_validate(model, held, settings.final))


def schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: 5 % linear warm-up, then a cosine to 10 %."""
    warm = max(1, steps // 20)
    if step <= warm:
        return step / warm
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def _validate(model: nn.Module, held: Tensor, sequences: int) -> float:
    """The loss on fixed sequences, each node computing its share."""
    starts = even_starts(held, sequences, CONTEXT)[dist.get_rank() :: dist.get_world_size()]
    total = torch.tensor([0.0, float(len(starts))], dtype=torch.float64)
    total[0] = float(loss_of(model, *windows(held, starts, CONTEXT))) * len(starts)
    dist.all_reduce(total)
    return float(total[0] / total[1])


def _mean(value: float) -> float:
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()
