"""Two small networks trained over five nodes with one global Top-k (EF21, Figures 13 to 15)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from laconic.compressors import Identity, TopK
from laconic.feedback import DCGD, EF14, EF21, EF21Plus, Feedback
from laconic.lab._style import COLOURS
from laconic.layout import Layout
from laconic.papers._ef21_common import PAPER, panels
from laconic.papers._experiment import Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._images import IMAGES, Images, load_images
from laconic.papers._networks import FlatNetwork, plain_network, residual_network
from laconic.papers._training import CHANCE, Course, Training, kept

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


@dataclass(frozen=True)
class Size:
    """How much of it is run.

    Args:
        batches: images per node and step.
        steps: steps of every run, whatever the batch.
        judged: steps between judgements.
        grid: stepsizes tried with the first seed, by network.
        seeds: number of seeds at the best stepsize.
        tested: test images.
    """

    batches: tuple[int, ...] = (8, 32, 128, 512)
    steps: int = 300
    judged: int = 50
    grid: tuple[tuple[str, tuple[float, ...]], ...] = (
        ("residual", (0.05, 0.1, 0.2, 0.4)),
        ("plain", (0.0125, 0.025, 0.05, 0.1)),
    )
    seeds: int = 3
    tested: int = 2000


FULL = Size()
QUICK = Size(
    batches=(8, 64),
    steps=60,
    judged=10,
    grid=(("residual", (0.2, 0.4)), ("plain", (0.025, 0.05))),
    seeds=2,
    tested=500,
)


@dataclass(frozen=True)
class Tuned:
    """One method on one network and batch: the best stepsize, and a course for each seed."""

    stepsize: float
    courses: list[Course]

    @property
    def losses(self) -> list[float]:
        """The training loss at the end, by seed: the mean of the last two points, of which each is noisy."""
        return [float(np.mean(course.loss[-2:])) for course in self.courses]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy at the end, by seed; the mean of the last two points."""
        return [float(np.mean(course.accuracy[-2:])) for course in self.courses]


Runs = dict[tuple[str, int], dict[str, Tuned]]
"""By network and batch, then by method."""


def deep(settings: Settings) -> Report:
    """The experiment, in full or quick."""
    return report(settings, QUICK if settings.quick else FULL)


def report(settings: Settings, size: Size) -> Report:
    """The experiment at any size."""
    images = load_images(settings.file(IMAGES), SIDE)
    runs: Runs = {}
    total = len(size.grid) * len(size.batches) * len(METHODS)
    for network, grid in size.grid:
        for batch in size.batches:
            runs[network, batch] = {}
            for name in METHODS:
                done = sum(map(len, runs.values()))
                settings.tell(done / total, f"{name}, {network} network, {batch} images a node")
                runs[network, batch][name] = _tuned(settings, size, images, network, grid, batch, name)
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
        verdicts=_verdicts(runs),
        notes=(
            f"Networks of {sizes['residual']} (residual) and {sizes['plain']} (plain) parameters on"
            f" {SIDE} x {SIDE} images, {NODES} nodes of {len(images.train) // NODES} images, {size.steps}"
            f" steps; one global Top-k that keeps {DENSITY:.0%}; no momentum.",
            "Stepsizes are tuned for each method, network and batch, with the first seed, by the training"
            " loss at the end, over "
            + "; ".join(f"{name}: {', '.join(map(str, grid))}" for name, grid in size.grid)
            + ". They are the paper's grid in kind (powers of 2), not in range.",
            f"Results are means over {size.seeds} seeds, with their standard error.",
        ),
    )


def _tuned(
    settings: Settings,
    size: Size,
    images: Images,
    network: str,
    grid: tuple[float, ...],
    batch: int,
    name: str,
) -> Tuned:
    """Try the grid with the first seed, and go on with the others at the best of it."""

    def course(stepsize: float, seed: int) -> Course:
        flat = FlatNetwork(NETWORKS[network], seed)
        training = Training(
            images,
            flat,
            rounds=size.steps,
            stepsize=stepsize,
            nodes=NODES,
            batch=batch,
            judged=size.judged,
            tested=size.tested,
            layout=Layout.flat(len(flat.start)),
        )
        file = f"{network}-{batch}-{name}-{size.steps}-{stepsize:g}-{seed}"
        return kept(settings, file, lambda: training.run(METHODS[name], seed))

    tried = [Tuned(stepsize, [course(stepsize, 0)]) for stepsize in grid]
    best = min(tried, key=lambda each: np.nan_to_num(each.losses[0], nan=np.inf))
    return Tuned(best.stepsize, best.courses + [course(best.stepsize, seed) for seed in range(1, size.seeds)])


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _verdicts(runs: Runs) -> list[Verdict]:
    finite = all(np.isfinite(tuned.losses).all() for methods in runs.values() for tuned in methods.values())
    verdicts = [
        verdict(
            "with a tuned stepsize every method trains",
            "worst training loss at the end"
            f" {max(max(t.losses) for m in runs.values() for t in m.values()):.3f}; chance is {CHANCE:.3f}",
            finite and all(_mean(t.losses)[0] < CHANCE for m in runs.values() for t in m.values()),
            "every run stays finite, and every mean is below chance",
        )
    ]
    for (network, batch), methods in runs.items():
        where = f"{network} network, {batch} images a node"
        sgd = CHANCE - _mean(methods["SGD"].losses)[0]
        shares = {name: (CHANCE - _mean(methods[name].losses)[0]) / sgd for name in ("EF14", "EF21", "EF21+")}
        verdicts.append(
            verdict(
                f"{where}: step for step EF21 and EF21+ keep up with SGD at {DENSITY:.0%} of its bits",
                ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
                + f" of SGD's descent below chance ({sgd:.3f})",
                min(shares["EF21"], shares["EF21+"]) >= 0.5,
                "both make at least half of SGD's descent in the training loss",
            )
        )
    for first, second in (("EF21", "EF14"), ("EF21+", "EF21")):
        for (network, batch), methods in runs.items():
            pairs = zip(methods[first].accuracies, methods[second].accuracies, strict=True)
            gain, error = _mean([100 * (a - b) for a, b in pairs])
            losses = zip(methods[first].losses, methods[second].losses, strict=True)
            loss, loss_error = _mean([a - b for a, b in losses])
            verdicts.append(
                verdict(
                    f"{network} network, {batch} images a node: {first} is at least as good as {second}",
                    f"test accuracy {gain:+.1f} +- {error:.1f} points, training loss {loss:+.3f} +-"
                    f" {loss_error:.3f}",
                    gain > -2 * max(error, 0.5) and loss < 2 * max(loss_error, 0.01),
                    "neither test accuracy nor training loss is worse by more than twice the standard error"
                    " of the difference over seeds, which counts as 0.5 points and 0.01 at least",
                )
            )
    return verdicts


def _figure(runs: Runs) -> Figure:
    networks = list(dict.fromkeys(network for network, _ in runs))
    batches = sorted({batch for _, batch in runs})
    figure, axes = panels(
        len(networks),
        len(batches) + 1,
        f"Training over {NODES} nodes, one global Top-k of {DENSITY:.0%}",
        3.6,
        3.2,
    )
    for row, network in zip(axes, networks, strict=True):
        for place, batch in zip(row, batches, strict=False):
            for name, tuned in runs[network, batch].items():
                # A logarithmic axis has no place for the start, where nothing has been sent.
                least = min(len(course.rounds) for course in tuned.courses)
                bits = tuned.courses[0].bits["values"][1:least]
                curves = np.array([course.loss[1:least] for course in tuned.courses])
                label = f"{name}, stepsize {tuned.stepsize:g}"
                place.plot(bits, curves.mean(axis=0), "o-", markersize=3, color=COLOURS[name], label=label)
                place.fill_between(
                    bits, curves.min(axis=0), curves.max(axis=0), color=COLOURS[name], alpha=0.15
                )
            place.axhline(CHANCE, color="black", linestyle=":", linewidth=1)
            place.set_xscale("log")
            place.set_yscale("linear")
            # Room for the legend below the curves.
            low, high = place.get_ylim()[0], CHANCE + 0.2
            place.set_ylim(low - 0.35 * (high - low), high)
            place.set_title(f"{network}, {batch} images a node", fontsize=10)
            place.set_xlabel("bits sent per node", fontsize=9)
            place.set_ylabel("training loss")
            place.legend(frameon=False, fontsize=6, loc="lower left")
        last = row[-1]
        for name in METHODS:
            ends = [_mean([100 * a for a in runs[network, batch][name].accuracies]) for batch in batches]
            last.errorbar(
                batches,
                [m for m, _ in ends],
                [e for _, e in ends],
                color=COLOURS[name],
                marker="o",
                capsize=3,
                label=name,
            )
        last.set_xscale("log", base=2)
        last.set_yscale("linear")
        last.set_xlabel("images per node and step", fontsize=9)
        last.set_ylabel("test accuracy at the end (%)")
        last.set_title(f"{network}: equal steps", fontsize=10)
        last.legend(frameon=False, fontsize=7)
    return figure


def _rows(runs: Runs) -> list[tuple[Cell, ...]]:
    return [
        (network, batch, name, tuned.stepsize, seed, *entry)
        for (network, batch), methods in runs.items()
        for name, tuned in methods.items()
        for seed, course in enumerate(tuned.courses)
        for entry in zip(course.rounds, course.bits["values"], course.loss, course.accuracy, strict=True)
    ]


DEEP = Experiment(
    name="ef21-deep",
    paper=PAPER,
    figure="Figures 13 to 15 of the appendix",
    shows=(
        "Error feedback at 5 % of the bits beside SGD on two small networks, and EF21 against EF by"
        " batch size."
    ),
    run=deep,
    needs=(IMAGES,),
    stands_for=(
        "The paper trains ResNet18 and VGG11 on all of CIFAR-10, which two cores cannot: small networks of"
        " the same two kinds, trained for a few epochs on a subset at a quarter of the resolution, stand in."
    ),
)
"""Figures 13 to 15."""
