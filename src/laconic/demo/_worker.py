"""One node of the demo: trains with every method in turn, or times some steps of each."""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.demo._methods import METHODS, Method
from laconic.demo._model import CONTEXT, ByteTransformer, loss_of
from laconic.demo._text import even_starts, read_corpus, share, windows
from laconic.demo._trainer import make_trainer
from laconic.kernels import say_with
from laconic.network import enter_rank

SEQUENCES = 4
"""Sequences a node and step."""
TIMED_STEPS = 15


@dataclass(frozen=True)
class DemoSettings:
    """Settings that all methods share.

    Args:
        steps: steps of each method.
        nodes: processes.
        seed: of the first weights and the order of the data, alike for all methods.
        curve: validation sequences of the loss curve.
        final: validation sequences of the last loss.
        points: points of the loss curve.
    """

    steps: int = 160
    nodes: int = 4
    seed: int = 0
    curve: int = 64
    final: int = 320
    points: int = 16


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


def main() -> None:
    """Run the rank that the arguments describe."""
    chosen, put = enter_rank()
    torch.set_num_threads(1)
    # Whichever process compiles says so to the parent, which has the terminal.
    say_with(lambda text: put({"note": text}))
    send = put if dist.get_rank() == 0 else _silent
    settings = DemoSettings(**chosen["settings"])
    known = {method.name: method for method in METHODS}
    methods = [known[name] for name in chosen["methods"]]
    send({"note": "reading the text"})
    train, held = read_corpus()
    text = share(train, dist.get_rank(), settings.nodes)
    for method in methods:
        send({"note": f"warming up {method.name}"})
        _warm_up(method, text)
    for method in methods:
        if chosen["trains"]:
            send({"run": asdict(train_with(method, settings, text, held, send))})
        else:
            send({"note": f"timing {method.name}"})
            send({"name": method.name, "seconds": time_steps(method, settings, text)})
    dist.barrier()
    os._exit(0)  # exchanges of closed groups may keep threads


def _warm_up(method: Method, text: Tensor) -> None:
    """Two steps on a model to throw away, for what is made at first use."""
    model = ByteTransformer()
    trainer = make_trainer(method, model)
    for _ in range(2):
        starts = torch.arange(SEQUENCES)
        torch.autograd.backward(loss_of(model, *windows(text, starts, CONTEXT)))
        trainer.step(method.lr)
    trainer.close()


def _silent(_: dict[str, Any]) -> None:
    pass


def train_with(method: Method, settings: DemoSettings, text: Tensor, held: Tensor, send: Send) -> Run:
    """Train one model with one method, the same weights and batches for all methods."""
    trained = _Training(method, settings, text)
    every = max(1, settings.steps // settings.points)
    run = Run(method.name, 0.0, [0], [_validate(trained.model, held, settings.curve)], [0], [0.0])
    spent = 0.0
    for step in range(1, settings.steps + 1):
        spent += trained.step(schedule(step, settings.steps))
        if step % every == 0 or step == settings.steps:
            run.steps.append(step)
            run.losses.append(_validate(trained.model, held, settings.curve))
            run.handed.append(trained.trainer.handed())
            run.seconds.append(_mean(spent))
        send({"name": method.name, "step": step, "loss": run.losses[-1]})
    trained.trainer.close()
    return replace(run, loss=_validate(trained.model, held, settings.final))


def time_steps(method: Method, settings: DemoSettings, text: Tensor) -> float:
    """The median time of a step, in seconds, the mean over nodes."""
    trained = _Training(method, settings, text)
    # EF21's first message is the whole gradient.
    times = [trained.step(0.1) for _ in range(TIMED_STEPS + 2)][2:]
    trained.trainer.close()
    return _mean(statistics.median(times))


class _Training:
    def __init__(self, method: Method, settings: DemoSettings, text: Tensor) -> None:
        torch.manual_seed(settings.seed)
        self.model = ByteTransformer()
        self.trainer = make_trainer(method, self.model)
        self._lr, self._text = method.lr, text
        self._draw = torch.Generator().manual_seed(1000 * settings.seed + dist.get_rank())

    def step(self, factor: float) -> float:
        """Train on the next batch with a share of the learning rate; its seconds."""
        start = time.perf_counter()
        starts = torch.randint(self._text.numel() - CONTEXT - 1, (SEQUENCES,), generator=self._draw)
        self.model.zero_grad()
        torch.autograd.backward(loss_of(self.model, *windows(self._text, starts, CONTEXT)))
        self.trainer.step(self._lr * factor)
        return time.perf_counter() - start


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
