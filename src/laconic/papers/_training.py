"""Training of a network by a method over simulated nodes, and by SGD on one."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from laconic.feedback import Feedback
from laconic.lab._runner import torch_on_one_thread
from laconic.lab._simulation import ACCOUNTINGS
from laconic.layout import Layout
from laconic.messages import Accounting
from laconic.papers._experiment import Settings
from laconic.papers._images import Images
from laconic.papers._networks import FlatNetwork

CHANCE = math.log(10)
"""Cross-entropy of a uniform guess over ten classes."""


def batches(count: int, nodes: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Without end, the rows that each node sees in a round: int64 (nodes, batch).

    Every node owns an equal random share of the rows and walks through it again and again, reshuffled.

    Raises:
        ValueError: where a node owns less than a batch.
    """
    share = count // nodes
    if batch > share:
        raise ValueError(f"a batch of {batch} is more than the {share} rows that each of {nodes} nodes owns")
    generator = torch.Generator().manual_seed(seed)
    owned = torch.randperm(count, generator=generator)[: share * nodes].view(nodes, share)
    while True:
        order = torch.stack([torch.randperm(share, generator=generator) for _ in range(nodes)])
        walked = owned.gather(1, order)
        for start in range(0, share - batch + 1, batch):
            yield walked[:, start : start + batch]


@dataclass(frozen=True)
class TrainingCurve:
    """Loss, accuracy and bits of a training, one entry for each evaluation.

    Args:
        rounds: rounds made.
        loss: training loss, nats; NaN, and no more entries, where the run is no longer finite.
        accuracy: share of test images classed rightly.
        bits: bits that a node has sent, mean over nodes, by accounting; as everywhere in the lab, a dense
            first round is free by "values".
    """

    rounds: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    bits: dict[Accounting, list[float]] = field(default_factory=lambda: {kind: [] for kind in ACCOUNTINGS})

    def add(self, rounds: int, loss: float, accuracy: float, bits: dict[Accounting, float]) -> None:
        self.rounds.append(rounds)
        self.loss.append(loss)
        self.accuracy.append(accuracy)
        for kind, sent in bits.items():
            self.bits[kind].append(sent)


@dataclass(frozen=True)
class Training:
    """Plain SGD on several nodes, the same for all methods.

    Args:
        images: what is learned.
        network: the network.
        rounds: rounds to make.
        stepsize: the stepsize.
        nodes: how many nodes.
        batch: images a node and round.
        evaluated: rounds between evaluations.
        train_images: images of training to evaluate on.
        test_images: images of testing to evaluate on.
        layout: what the compressors see: the network's own layout, or one segment.
    """

    images: Images
    network: FlatNetwork
    rounds: int
    stepsize: float
    nodes: int = 4
    batch: int = 32
    evaluated: int = 20
    train_images: int = 1000
    test_images: int = 1000
    layout: Layout | None = None

    @torch_on_one_thread()
    def run(self, feedback: Feedback, seed: int = 0) -> TrainingCurve:
        """Train from the network's start by one method; the seed decides the batches and the draws.

        In each round every node sends one message of the gradient of a batch of its own images.
        """
        layout = self.network.layout if self.layout is None else self.layout
        sender = feedback.sender(layout, node=torch.arange(self.nodes), seed=seed)
        receiver = feedback.receiver(layout, self.nodes)
        inside = feedback.estimates == "step"
        rows = batches(len(self.images.train), self.nodes, self.batch, seed)
        x, curve = self.network.start.clone(), TrainingCurve()
        bits: dict[Accounting, float] = dict.fromkeys(ACCOUNTINGS, 0.0)
        for t in range(self.rounds + 1):
            if t % self.evaluated == 0 or t == self.rounds:
                curve.add(t, *self._evaluate(x), bits)
            if t == self.rounds or math.isnan(curve.loss[-1]):
                break
            gradients = self._gradients(x, next(rows))
            if not bool(torch.isfinite(gradients).all()):
                curve.add(t, math.nan, self._evaluate(x)[1], bits)
                break
            message = sender.send(gradients, stepsize=self.stepsize if inside else None)
            estimate = receiver.receive(message)
            x = x - (estimate if inside else estimate * self.stepsize)
            free = feedback.plan(t).dense
            for kind in ACCOUNTINGS:
                sent = 0.0 if free and kind == "values" else message.bits(kind).to(torch.float64).mean()
                bits[kind] += float(sent)
        return curve

    def _gradients(self, x: Tensor, rows: Tensor) -> Tensor:
        pairs = ((self.images.train[own], self.images.train_classes[own]) for own in rows)
        return torch.stack([self.network.gradient(x, *pair) for pair in pairs])

    def _evaluate(self, x: Tensor) -> tuple[float, float]:
        """Training loss, NaN where it is not finite, and accuracy in testing."""
        images, train, test = self.images, self.train_images, self.test_images
        loss, _ = self.network.evaluate(x, images.train[:train], images.train_classes[:train])
        _, right = self.network.evaluate(x, images.test[:test], images.test_classes[:test])
        return loss if math.isfinite(loss) else math.nan, right


def train_cached(
    settings: Settings, name: str, training: Training, feedback: Feedback, seed: int = 0
) -> TrainingCurve:
    """``training.run(feedback, seed)``, or its curve from the checkpoint folder."""
    return TrainingCurve(**settings.cached(name, lambda: asdict(training.run(feedback, seed))))


def descend(
    network: FlatNetwork, images: Images, stepsize: float = 0.05, batch: int = 128, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end, the iterates (d,) of plain SGD on one node, and the gradient (d,) of a batch at each."""
    x = network.start.clone()
    for (rows,) in batches(len(images.train), 1, batch, seed):
        g = network.gradient(x, images.train[rows], images.train_classes[rows])
        yield x, g
        x = x - stepsize * g
