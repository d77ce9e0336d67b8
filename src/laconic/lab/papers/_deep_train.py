"""Training over simulated nodes: one flat vector of parameters, one message a node and step."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from laconic.feedback import Feedback
from laconic.lab.papers._deep_nets import Images


@dataclass(frozen=True)
class Point:
    """Where a training run stands.

    Args:
        step: steps taken.
        bits: bits sent per node, 32 a kept value; a dense first round is free, as in the papers.
        loss: mean cross-entropy on the first images of every node; NaN where it is not finite.
        accuracy: share of the test images that are labelled right.
    """

    step: int
    bits: float
    loss: float
    accuracy: float


def train(
    make: Callable[[], nn.Module],
    images: Images,
    feedback: Feedback,
    stepsize: float,
    batch: int,
    steps: int,
    seed: int,
    points: int,
) -> list[Point]:
    """Train a network from ``make`` over the nodes of ``images``; its course at ``points`` steps and at 0.

    In each step every node forms the gradient of a random batch of its own images, and sends one message of
    the whole flattened gradient: one global Top-k, as in the authors' code. The seed decides the first
    parameters and the batches, the same for every method.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
    draws = np.random.default_rng(seed)
    x = parameters_to_vector(net.parameters()).detach()
    nodes = len(images.x)
    sender = feedback.sender(x.numel(), node=torch.arange(nodes), seed=seed)
    receiver = feedback.receiver(x.numel(), nodes)
    bits, course = 0.0, [_point(net, images, 0, 0.0)]
    for t in range(steps):
        gradients = torch.stack([_gradient(net, *_batch(images, i, batch, draws)) for i in range(nodes)])
        if not bool(torch.isfinite(gradients).all()):
            # Nothing sensible follows; the rest of the course says so.
            return [*course, Point(steps, bits, float("nan"), 0.1)]
        if feedback.estimates == "step":
            message = sender.send(gradients, stepsize=stepsize)
            x = x - receiver.receive(message)
        else:
            message = sender.send(gradients)
            x = x - stepsize * receiver.receive(message)
        if not feedback.plan(t).dense:
            bits += float(message.bits("values").to(torch.float64).mean())
        vector_to_parameters(x, net.parameters())
        if (t + 1) * points // steps > t * points // steps:
            course.append(_point(net, images, t + 1, bits))
    return course


def _batch(images: Images, node: int, batch: int, draws: np.random.Generator) -> tuple[Tensor, Tensor]:
    chosen = torch.from_numpy(draws.choice(len(images.y[node]), batch, replace=False))
    return images.x[node][chosen], images.y[node][chosen]


def _gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = functional.cross_entropy(net(x), y)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(net.parameters()))])


@torch.no_grad()
def _point(net: nn.Module, images: Images, step: int, bits: float, seen: int = 200) -> Point:
    x, y = torch.cat([part[:seen] for part in images.x]), torch.cat([part[:seen] for part in images.y])
    loss = float(functional.cross_entropy(net(x), y))
    right = float((net(images.x_test).argmax(dim=-1) == images.y_test).to(torch.float64).mean())
    return Point(step, bits, loss if np.isfinite(loss) else float("nan"), right)
