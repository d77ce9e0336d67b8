"""Two small networks trained over five nodes with one global Top-k (EF21, Figures 13 to 15)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from laconic.compressors import Identity, TopK
from laconic.feedback import DCGD, EF14, EF21, EF21Plus, Feedback
from laconic.lab._style import COLOURS
from laconic.layout import Layout
from laconic.papers._experiment import EF21_PAPER, Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, panels
from laconic.papers._images import IMAGES, load_images
from laconic.papers._networks import FlatNetwork, plain_network, residual_network
from laconic.papers._training import CHANCE, Training, TrainingCurve, train_cached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NODES, DENSITY, WIDTH, SIDE = 5, 0.05, 8, 8
METHODS: dict[str, Feedback] = {
    "SGD": DCGD(Identity()),
    "EF14": EF14(TopK(DENSITY)),
    "EF21": EF21(TopK(DENSITY)),
    "EF21+": EF21Plus(TopK(DENSITY)),
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: residual_network(WIDTH),
    "plain": lambda: plain_network(WIDTH, SIDE),
}


GRIDS: Mapping[str, tuple[float, ...]] = {
    "residual": (0.05, 0.1, 0.2, 0.4),
    "plain": (0.0125, 0.025, 0.05, 0.1),
}
"""Stepsizes that are tried, by network."""


@dataclass(frozen=True)
class Tuned:
    """One method on one network and batch: the best stepsize, and a curve for each seed."""

    stepsize: float
    curves: list[TrainingCurve]

    @property
    def losses(self) -> list[float]:
        """The training loss at the end, by seed: the mean of the last two points, of which each is noisy."""
        return [float(np.mean(curve.loss[-2:])) for curve in self.curves]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy at the end, by seed; the mean of the last two points."""
        return [float(np.mean(curve.accuracy[-2:])) for curve in self.curves]


Runs = dict[tuple[str, int], dict[str, Tuned]]
"""By network and batch, then by method."""


def report(
    settings: Settings,
    grids: Mapping[str, tuple[float, ...]] = GRIDS,
    batches: tuple[int, ...] = (8, 32, 128, 512),
    steps: int = 300,
    evaluated: int = 50,
    seeds: int = 3,
    test_images: int = 2000,
) -> Report:
    """Every method on every network and batch, at its best stepsize.

    Args:
        settings: how it runs.
        grids: stepsizes tried with the first seed, by network.
        batches: images per node and step.
        steps: steps of every run, whatever the batch.
        evaluated: steps between evaluations.
        seeds: number of seeds at the best stepsize.
        test_images: test images.
    """
    images = load_images(settings.file(IMAGES), SIDE)

    def curve(network: str, batch: int, name: str, stepsize: float, seed: int) -> TrainingCurve:
        flat = FlatNetwork(NETWORKS[network], seed)
        training = Training(
            images,
            flat,
            rounds=steps,
            stepsize=stepsize,
            nodes=NODES,
            batch=batch,
            evaluated=evaluated,
            test_images=test_images,
            layout=Layout.flat(len(flat.start)),
        )
        file = f"{network}-{batch}-{name}-{steps}-{stepsize:g}-{seed}"
        return train_cached(settings, file, training, METHODS[name], seed)

    def tune(case: tuple[str, int], name: str) -> Tuned:
        tried = [Tuned(stepsize, [curve(*case, name, stepsize, 0)]) for stepsize in grids[case[0]]]
        best = min(tried, key=lambda each: np.nan_to_num(each.losses[0], nan=np.inf))
        others = [curve(*case, name, best.stepsize, seed) for seed in range(1, seeds)]
        return Tuned(best.stepsize, best.curves + others)

    runs = settings.grid(product(grids, batches), METHODS, tune)
    sizes = {name: sum(part.numel() for part in make().parameters()) for name, make in NETWORKS.items()}
    return Report(
        figure=_figure(runs),
        columns=(
            "network",
            "images per node and step",
            "method",
            "stepsize",
            "seed",
            "step",
            "bits per node (32 per kept value)",
            "training loss",
            "test accuracy",
        ),
        rows=_rows(runs),
        verdicts=tuple(_verdicts(runs)),
        notes=(
            f"Networks of {sizes['residual']} (residual) and {sizes['plain']} (plain) parameters on"
            f" {SIDE} x {SIDE} images, {NODES} nodes of {len(images.train) // NODES} images, {steps}"
            f" steps; one global Top-k that keeps {DENSITY:.0%}; no momentum.",
            "Stepsizes are tuned for each method, network and batch, with the first seed, by the training"
            " loss at the end, over "
            + "; ".join(f"{name}: {', '.join(map(str, grid))}" for name, grid in grids.items())
            + ". They are the paper's grid in kind (powers of 2), not in range.",
            f"Results are means over {seeds} seeds, with their standard error.",
        ),
    )


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _verdicts(runs: Runs) -> Iterator[Verdict]:
    finite = all(np.isfinite(tuned.losses).all() for methods in runs.values() for tuned in methods.values())
    yield verdict(
        "with a tuned stepsize every method trains",
        "worst training loss at the end"
        f" {max(max(t.losses) for m in runs.values() for t in m.values()):.3f}; chance is {CHANCE:.3f}",
        finite and all(_mean(t.losses)[0] < CHANCE for m in runs.values() for t in m.values()),
        "every run stays finite, and every mean is below chance",
    )
    for (network, batch), methods in runs.items():
        where = f"{network} network, {batch} images a node"
        sgd = CHANCE - _mean(methods["SGD"].losses)[0]
        shares = {name: (CHANCE - _mean(methods[name].losses)[0]) / sgd for name in ("EF14", "EF21", "EF21+")}
        yield verdict(
            f"{where}: step for step EF21 and EF21+ keep up with SGD at {DENSITY:.0%} of its bits",
            ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            + f" of SGD's descent below chance ({sgd:.3f})",
            min(shares["EF21"], shares["EF21+"]) >= 0.5,
            "both make at least half of SGD's descent in the training loss",
        )
    for first, second in (("EF21", "EF14"), ("EF21+", "EF21")):
        for (network, batch), methods in runs.items():
            pairs = zip(methods[first].accuracies, methods[second].accuracies, strict=True)
            gain, error = _mean([100 * (a - b) for a, b in pairs])
            losses = zip(methods[first].losses, methods[second].losses, strict=True)
            loss, loss_error = _mean([a - b for a, b in losses])
            yield verdict(
                f"{network} network, {batch} images a node: {first} is at least as good as {second}",
                f"test accuracy {gain:+.1f} +- {error:.1f} points, training loss {loss:+.3f} +-"
                f" {loss_error:.3f}",
                gain > -2 * max(error, 0.5) and loss < 2 * max(loss_error, 0.01),
                "neither test accuracy nor training loss is worse by more than twice the standard error"
                " of the difference over seeds, which counts as 0.5 points and 0.01 at least",
            )


def _figure(runs: Runs) -> Figure:
    networks = list(dict.fromkeys(network for network, _ in runs))
    batches = sorted({batch for _, batch in runs})
    title = f"Training over {NODES} nodes, one global Top-k of {DENSITY:.0%}"
    figure, axes = panels(len(networks), len(batches) + 1, 3.6, 3.2, title, size=12)
    for row, network in zip(axes, networks, strict=True):
        for place, batch in zip(row, batches, strict=False):
            for name, tuned in runs[network, batch].items():
                # A logarithmic axis has no place for the start, where nothing has been sent.
                least = min(len(curve.rounds) for curve in tuned.curves)
                bits = tuned.curves[0].bits["values"][1:least]
                losses = np.array([curve.loss[1:least] for curve in tuned.curves])
                style = {"markersize": 3, "label": f"{name}, stepsize {tuned.stepsize:g}"}
                place.plot(bits, losses.mean(axis=0), "o-", color=COLOURS[name], **style)
                place.fill_between(
                    bits, losses.min(axis=0), losses.max(axis=0), color=COLOURS[name], alpha=0.15
                )
            place.axhline(CHANCE, color="black", linestyle=":", linewidth=1)
            place.set_xscale("log")
            # Room for the legend below the curves.
            low, high = place.get_ylim()[0], CHANCE + 0.2
            limits = (low - 0.35 * (high - low), high)
            title = f"{network}, {batch} images a node"
            label(
                place, "bits sent per node", "training loss", title, ylim=limits, legend=6, loc="lower left"
            )
            place.xaxis.label.set_size(9)
        last = row[-1]
        for name in METHODS:
            ends = [_mean([100 * a for a in runs[network, batch][name].accuracies]) for batch in batches]
            means, errors = zip(*ends, strict=True)
            last.errorbar(batches, means, errors, color=COLOURS[name], marker="o", capsize=3, label=name)
        last.set_xscale("log", base=2)
        title = f"{network}: equal steps"
        label(last, "images per node and step", "test accuracy at the end (%)", title, legend=7)
        last.xaxis.label.set_size(9)
    return figure


def _rows(runs: Runs) -> list[tuple[Cell, ...]]:
    return [
        (network, batch, name, tuned.stepsize, seed, *entry)
        for (network, batch), methods in runs.items()
        for name, tuned in methods.items()
        for seed, curve in enumerate(tuned.curves)
        for entry in zip(curve.rounds, curve.bits["values"], curve.loss, curve.accuracy, strict=True)
    ]


_QUICK = {
    "grids": {"residual": (0.2, 0.4), "plain": (0.025, 0.05)},
    "batches": (8, 64),
    "steps": 60,
    "evaluated": 10,
    "seeds": 2,
    "test_images": 500,
}

EXPERIMENTS = (
    Experiment(
        name="ef21-deep",
        paper=EF21_PAPER,
        figure="Figures 13 to 15 of the appendix",
        shows=(
            "Error feedback at 5 % of the bits beside SGD on two small networks, and EF21 against EF by"
            " batch size."
        ),
        report=report,
        quick=_QUICK,
        needs=(IMAGES,),
        stands_for=(
            "The paper trains ResNet18 and VGG11 on all of CIFAR-10, which two cores cannot: small networks"
            " of the same two kinds, trained for a few epochs on a subset at a quarter of the resolution,"
            " stand in."
        ),
    ),
)
