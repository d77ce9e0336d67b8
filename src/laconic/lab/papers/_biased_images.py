"""Small networks on a part of CIFAR-10, their parameters one flat vector, trained on several nodes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.feedback import Feedback
from laconic.lab.papers._experiment import DataMissingError
from laconic.layout import Layout
from laconic.messages import Message

IMAGES = "images/cifar10_subset.npz"


@dataclass(frozen=True)
class Images:
    """Images (N, 3, 32, 32) float32, each channel with mean 0 and variance 1, and classes (N,) int64."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


def load_images(data: Path | None) -> Images:
    """The images under the data folder.

    Raises:
        DataMissingError: where they are not there.
    """
    path = None if data is None else data / IMAGES
    if path is None or not path.exists():
        raise DataMissingError(
            f"{IMAGES} is not in the data folder ({data}); it is an npz file with x_train, y_train, x_test "
            "and y_test, images (N, 32, 32, 3) and classes (N,) of CIFAR-10, both uint8"
        )
    with np.load(path) as file:
        pixels = [torch.from_numpy(file[name]).to(torch.float32) / 255.0 for name in ("x_train", "x_test")]
        classes = [torch.from_numpy(file[name]).to(torch.int64) for name in ("y_train", "y_test")]
    mean, deviation = pixels[0].mean(dim=(0, 1, 2)), pixels[0].std(dim=(0, 1, 2))
    train, test = (((x - mean) / deviation).permute(0, 3, 1, 2).contiguous() for x in pixels)
    return Images(train, classes[0], test, classes[1])


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        # Norms over groups of channels, so that an image's loss does not depend on the others.
        nn.GroupNorm(outputs // 4, outputs),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _block(width, width), _block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        shown: Tensor = x + self.second(self.first(x))
        return shown


def vgg(width: int = 8) -> nn.Module:
    """Convolutions, pooling, and a linear layer: a small VGG."""
    return nn.Sequential(
        _block(3, width, stride=2),
        nn.MaxPool2d(2),
        _block(width, 2 * width),
        nn.MaxPool2d(2),
        _block(2 * width, 4 * width),
        nn.Flatten(),
        nn.Linear(64 * width, 10),
    )


def resnet(width: int = 8) -> nn.Module:
    """A stem, two residual blocks, and a linear layer: a small residual network."""
    return nn.Sequential(
        _block(3, width, stride=2),
        nn.MaxPool2d(2),
        _Residual(width),
        _block(width, 2 * width, stride=2),
        _Residual(2 * width),
        nn.Flatten(),
        nn.Linear(32 * width, 10),
    )


class FlatNetwork:
    """A network whose parameters are one vector x (d,), and its loss and gradients there.

    Args:
        make: makes the network; its initial parameters are drawn from ``seed``.
        seed: of the initial parameters.
    """

    def __init__(self, make: Callable[[], nn.Module], seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = make()
        shapes = dict(self.module.named_parameters())
        self.layout = Layout.of(shapes)
        self.start = torch.cat([parameter.detach().flatten() for parameter in shapes.values()])

    def _outputs(self, x: Tensor, images: Tensor) -> Tensor:
        pieces = {s.name: x[s.offset : s.end].view(s.shape) for s in self.layout.segments}
        shown: Tensor = torch.func.functional_call(self.module, pieces, (images,))
        return shown

    def gradient(self, x: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        """The gradient of the mean loss, (d,)."""
        x = x.detach().requires_grad_()
        loss = functional.cross_entropy(self._outputs(x, images), classes)
        (found,) = torch.autograd.grad(loss, x)
        return found

    @torch.no_grad()
    def judge(self, x: Tensor, images: Tensor, classes: Tensor) -> tuple[float, float]:
        """Mean loss (nats) and the share of images that are classed rightly."""
        outputs = self._outputs(x, images)
        loss = functional.cross_entropy(outputs, classes)
        return float(loss), float((outputs.argmax(dim=-1) == classes).to(torch.float32).mean())


def batches(count: int, nodes: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Without end, the rows that each node sees in a round: int64 (nodes, batch).

    Every node owns an equal random share of the rows and walks through it again and again, reshuffled.
    """
    generator = torch.Generator().manual_seed(seed)
    share = count // nodes
    owned = torch.randperm(count, generator=generator)[: share * nodes].view(nodes, share)
    while True:
        order = torch.stack([torch.randperm(share, generator=generator) for _ in range(nodes)])
        walked = owned.gather(1, order)
        for start in range(0, share - batch + 1, batch):
            yield walked[:, start : start + batch]


@dataclass(frozen=True)
class Course:
    """How a training went, one entry for each time that it was judged.

    Args:
        rounds: rounds made.
        loss: training loss, nats.
        accuracy: share of test images classed rightly.
        bits: bits that a node has sent, by accounting: what ``pack`` makes, and the entropy.
        wire: as ``bits``, of the packed bytes.
    """

    rounds: list[int]
    loss: list[float]
    accuracy: list[float]
    bits: list[float]
    wire: list[float]


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
        judged: rounds between judgements.
        shown: images of each kind to judge on.
        layout: what the compressors see: the network's own layout, or one segment.
    """

    images: Images
    network: FlatNetwork
    rounds: int
    stepsize: float
    nodes: int = 4
    batch: int = 32
    judged: int = 20
    shown: int = 1000
    layout: Layout | None = None

    def run(self, feedback: Feedback, seed: int = 0, tell: Callable[[], None] | None = None) -> Course:
        """Train from the network's start by one method."""
        layout = self.network.layout if self.layout is None else self.layout
        nodes = torch.arange(self.nodes)
        sender = feedback.sender(layout, node=nodes, seed=seed)
        receiver = feedback.receiver(layout, self.nodes)
        inside = feedback.estimates == "step"
        rows = batches(len(self.images.train), self.nodes, self.batch, seed)
        x, sent, course = self.network.start.clone(), (0.0, 0.0), Course([], [], [], [], [])
        for t in range(self.rounds + 1):
            if t % self.judged == 0 or t == self.rounds:
                self._judge(course, t, x, sent)
                if tell is not None:
                    tell()
            if t == self.rounds or not bool(torch.isfinite(x).all()):
                break
            gradients = self._gradients(x, next(rows))
            if not bool(torch.isfinite(gradients).all()):
                break
            message = sender.send(gradients, stepsize=self.stepsize if inside else None)
            estimate = receiver.receive(message)
            x = x - (estimate if inside else estimate * self.stepsize)
            sent = (sent[0] + _mean_bits(message, "entropy"), sent[1] + _mean_bits(message, "wire"))
        return course

    def _gradients(self, x: Tensor, rows: Tensor) -> Tensor:
        pairs = ((self.images.train[own], self.images.train_classes[own]) for own in rows)
        return torch.stack([self.network.gradient(x, *pair) for pair in pairs])

    def _judge(self, course: Course, t: int, x: Tensor, sent: tuple[float, float]) -> None:
        few, images = self.shown, self.images
        loss, _ = self.network.judge(x, images.train[:few], images.train_classes[:few])
        _, right = self.network.judge(x, images.test[:few], images.test_classes[:few])
        course.rounds.append(t)
        course.loss.append(loss)
        course.accuracy.append(right)
        course.bits.append(sent[0])
        course.wire.append(sent[1])


def _mean_bits(message: Message, accounting: str) -> float:
    return float(message.bits(accounting).to(torch.float64).mean())  # type: ignore[arg-type]
