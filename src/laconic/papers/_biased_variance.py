"""Section 6.1: the variance of compressors on gradients along a training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from laconic.compressors import BiasedRounding, Compressor, NaturalCompression, RandK, TopK
from laconic.kernels import Stream
from laconic.lab._style import BLUE, GREEN, ORANGE, RED
from laconic.papers._experiment import BIASED_PAPER, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, panels
from laconic.papers._images import IMAGES, Images, load_images
from laconic.papers._networks import FlatNetwork, resnet, vgg
from laconic.papers._training import descend

FIFTH: Final = 0.2

COMPRESSORS: Final[Mapping[str, tuple[Compressor, str]]] = {
    "Top-k, k = d/5": (TopK(FIFTH), BLUE),
    "Rand-k, k = d/5": (RandK(FIFTH, unbiased=False), RED),
    "natural compression, deterministic": (BiasedRounding(2.0), GREEN),
    "natural compression, random": (NaturalCompression(), ORANGE),
}
"""The two pairs of Section 6.1, biased first."""


@dataclass(frozen=True)
class Variances:
    """``E|C(g) - g|^2 / |g|^2`` along the training of one network, by compressor.

    Args:
        network: its name.
        rounds: where it was measured.
        values: compressor to one number a measurement.
        loss: the training loss where it was measured.
    """

    network: str
    rounds: list[int]
    values: dict[str, list[float]]
    loss: list[float]


def follow(images: Images, name: str, network: FlatNetwork, rounds: int, every: int) -> Variances:
    """Train on one node by SGD and measure the variance of the minibatch gradients on the way."""
    found = Variances(name, [], {compressor: [] for compressor in COMPRESSORS}, [])
    for t, (x, g) in enumerate(islice(descend(network, images), rounds + 1)):
        if t % every == 0:
            found.rounds.append(t)
            found.loss.append(network.evaluate(x, images.train[:500], images.train_classes[:500])[0])
            for compressor, (operator, _) in COMPRESSORS.items():
                found.values[compressor].append(_variance(operator, g, seed=t))
    return found


def _variance(compressor: Compressor, g: Tensor, seed: int, draws: int = 8) -> float:
    n = draws if compressor.random else 1
    c = compressor.compress(g.expand(n, -1), Stream(seed=torch.arange(n) + 1000 * seed)).dense()
    return float((c - g).square().sum(-1).mean() / g.square().sum())


def report(settings: Settings, rounds: int = 2000, every: int = 50) -> Report:
    """Section 6.1, on two small networks.

    Raises:
        DataMissingError: where the images are not there.
    """
    images = load_images(settings.file(IMAGES))
    networks = {"small VGG": vgg, "small residual network": resnet}
    found = [
        follow(images, name, FlatNetwork(networks[name]), rounds, every) for name in settings.track(networks)
    ]
    figure, (plots,) = panels(1, 2, 5.0, title="Variance of compression during training (Section 6.1)")
    for axes, course in zip(plots, found, strict=True):
        for name, (_, colour) in COMPRESSORS.items():
            axes.plot(course.rounds, course.values[name], ".-", color=colour, linewidth=1.3, label=name)
        label(
            axes,
            "rounds",
            r"$E\Vert C(g) - g\Vert^2 / \Vert g\Vert^2$",
            course.network,
            log="y",
            ylim=(0.02, 8.0),
            legend=8 if axes is plots[0] else None,
        )
    rows = [
        (course.network, t, loss, name, course.values[name][j])
        for course in found
        for j, (t, loss) in enumerate(zip(course.rounds, course.loss, strict=True))
        for name in COMPRESSORS
    ]
    columns = ("network", "round", "training loss (nats)", "compressor", "E|C(g) - g|^2 / |g|^2")
    notes = (
        "two small networks on a part of CIFAR-10 stand for ResNet18, GoogLeNet and VGG19; SGD on one node, "
        "batch 128, stepsize 0.05",
        "Rand-k is the unscaled one; the unbiased one has the variance d/k - 1 = 4 on every vector",
    )
    return Report(figure, columns, rows, tuple(evaluate(found)), notes)


def evaluate(found: Sequence[Variances]) -> Iterator[Verdict]:
    """Biased versions have the lower variance."""
    names = list(COMPRESSORS)
    for biased, drawn in ((names[0], names[1]), (names[2], names[3])):
        pairs = [
            (low, high)
            for course in found
            for low, high in zip(course.values[biased], course.values[drawn], strict=True)
        ]
        ratios = [high / low for low, high in pairs]
        yield verdict(
            f"Section 6.1: {biased} has a lower variance than {drawn}",
            f"{min(ratios):.2f} to {max(ratios):.2f} times lower at {len(pairs)} places in training",
            min(ratios) > 1,
            "lower at every measurement of both networks",
        )
    bounds = dict(zip(names, (1 - FIFTH, None, 1 / 9, 1 / 8), strict=True))
    worst = {
        name: max(max(course.values[name]) for course in found)
        for name, bound in bounds.items()
        if bound is not None
    }
    yield verdict(
        "the declared worst cases hold on real gradients: 1 - k/d, 1 - 1/delta = 1/9, zeta - 1 = 1/8",
        ", ".join(f"{name} at most {value:.4f}" for name, value in worst.items()),
        all(value <= (bounds[name] or 0.0) for name, value in worst.items()),
        "no measured variance above its bound",
    )


EXPERIMENTS: Final = (
    Experiment(
        name="biased-empirical-variance",
        paper=BIASED_PAPER,
        figure="Section 6.1",
        shows="During training the biased compressors have a lower variance than their unbiased kin.",
        report=report,
        quick={"rounds": 150, "every": 10},
        needs=(IMAGES,),
    ),
)
