"""Figures 4 and 5: training on four nodes with error feedback, and with Top-k followed by dithering."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from laconic.compressors import Identity, NaturalDithering, RandK, TopK
from laconic.feedback import DCGD, EF14, Feedback
from laconic.lab._style import BLACK, BLUE, GREEN, ORANGE, PINK, RED
from laconic.messages import Accounting
from laconic.papers._experiment import BIASED_PAPER, Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, panels
from laconic.papers._images import IMAGES, load_images
from laconic.papers._networks import FlatNetwork, vgg
from laconic.papers._training import Training, TrainingCurve, train_cached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUICK: Final = {"width": 8, "rounds": 200, "evaluated": 10}
_STEPSIZE: Final = 0.05
_DITHERING: Final = NaturalDithering(2, math.inf)

FEEDBACK: Mapping[str, tuple[Feedback, str, str]] = {
    "SGD": (DCGD(Identity()), BLACK, "-"),
    "Top-5 with feedback": (EF14(TopK(5)), BLUE, "-"),
    "Top-5 without feedback": (DCGD(TopK(5)), RED, "-"),
    "Rand-5": (DCGD(RandK(5)), ORANGE, "-"),
    "Top-5 % with feedback": (EF14(TopK(0.05)), BLUE, "--"),
    "Top-5 % without feedback": (DCGD(TopK(0.05)), RED, "--"),
    "Rand-5 %": (DCGD(RandK(0.05)), ORANGE, "--"),
}
"""The methods of Figure 4, in both readings of "5": method, colour and line style."""

DITHERING: Mapping[str, tuple[Feedback, str, str]] = {
    "SGD": (DCGD(Identity()), BLACK, "-"),
    "Rand-5 %": (DCGD(RandK(0.05)), ORANGE, "-"),
    "Top-5 %": (EF14(TopK(0.05)), BLUE, "-"),
    "Nat. dithering": (DCGD(_DITHERING), PINK, "-"),
    "Top-5 % + nat. dithering": (EF14((TopK(0.05) >> _DITHERING).contractive()), GREEN, "-"),
}
"""The methods of Figure 5."""

_SETTING = (
    "small VGG with group norms on a part of CIFAR-10 (10,000 images), 4 nodes with equal random shares, "
    f"batch 32 a node, plain SGD with stepsize {_STEPSIZE}, each tensor compressed on its own; the paper "
    "trains VGG19 and VGG11 on all of CIFAR-10 with stepsize 0.01"
)


def train(
    settings: Settings,
    methods: Mapping[str, tuple[Feedback, str, str]],
    width: int = 16,
    rounds: int = 800,
    evaluated: int = 40,
) -> dict[str, TrainingCurve]:
    """Train the same network with every method; curves by method.

    Args:
        settings: how it runs; each curve is cached in the checkpoint folder, if any.
        methods: the methods, each with a colour and a line style.
        width: of the network.
        rounds: of each run.
        evaluated: rounds between evaluations.

    Raises:
        DataMissingError: where the images are not there.
    """
    images = load_images(settings.file(IMAGES))
    network = FlatNetwork(lambda: vgg(width))
    training = Training(images, network, rounds, _STEPSIZE, evaluated=evaluated)
    return {
        name: train_cached(settings, str(number), training, methods[name][0])
        for number, name in settings.track(enumerate(methods), lambda pair: pair[1])
    }


def late(course: TrainingCurve) -> float:
    """Mean training loss over the last quarter of the evaluations; infinite where it diverged."""
    last = course.loss[-max(1, len(course.loss) // 4) :]
    return sum(last) / len(last) if all(map(math.isfinite, last)) else math.inf


def _figure(
    methods: Mapping[str, tuple[Feedback, str, str]],
    curves: Mapping[str, tuple[list[int] | list[float], list[float], list[float]]],
    x_label: str,
    title: str,
) -> Figure:
    """Loss and accuracy over x, each method's curves (x, loss, accuracy)."""
    figure, ((left, right),) = panels(1, 2, 5.0, title=title)
    for name, (x, loss, accuracy) in curves.items():
        _, colour, style = methods[name]
        left.plot(x, loss, style, color=colour, label=name, linewidth=1.3)
        right.plot(x, [100 * share for share in accuracy], style, color=colour, linewidth=1.3)
    label(left, x_label, "training loss (nats)")
    label(right, x_label, "test accuracy (%)", legend=None)
    return figure


def report_feedback(settings: Settings, **size: int) -> Report:
    """Figure 4: what error feedback does for Top-k; the size is that of ``train``."""
    courses = train(settings, FEEDBACK, **size)
    curves = {name: (c.rounds, c.loss, c.accuracy) for name, c in courses.items()}
    title = "Error feedback keeps Top-k at the side of SGD (Figure 4)"
    return Report(
        _figure(FEEDBACK, curves, "rounds", title),
        COLUMNS,
        _rows(courses),
        evaluate_feedback(courses),
        (
            _SETTING,
            '"Top-5" does not say of what. Both readings are run: 5 coordinates of each tensor (full lines) '
            "and 5 % of each tensor (dashed); the statements below are held against both",
            "Rand-5 is the unbiased one, scaled by d/k, without feedback",
        ),
    )


def evaluate_feedback(courses: Mapping[str, TrainingCurve]) -> tuple[Verdict, ...]:
    """The statements of Section 6.2, for both readings."""
    found = []
    dense = late(courses["SGD"])
    for five in ("Top-5", "Top-5 %"):
        fed, bare = late(courses[f"{five} with feedback"]), late(courses[f"{five} without feedback"])
        drawn = late(courses[five.replace("Top", "Rand")])
        found += [
            verdict(
                f"{five} without error feedback degrades or diverges",
                f"late loss {bare:.3f}, with feedback {fed:.3f}",
                bare > fed + 0.05,
                "more than 0.05 nats worse than with feedback; mean over the last quarter of the judgements",
            ),
            verdict(
                f"{five} with error feedback follows SGD",
                f"late loss {fed:.3f}, SGD {dense:.3f}",
                fed - dense <= max(0.05, 0.5 * (bare - dense)),
                "within 0.05 nats of SGD, or at most half as far behind as without feedback",
            ),
            verdict(
                f"{five} with error feedback is better than Rand-5",
                f"late loss {fed:.3f}, Rand-5 {drawn:.3f}",
                fed < drawn,
                "lower late loss",
            ),
        ]
    return tuple(found)


def report_dithering(settings: Settings, **size: int) -> Report:
    """Figure 5: Top-k combined with natural dithering, per bit; the size is that of ``train``."""
    courses = train(settings, DITHERING, **size)
    # A logarithmic axis has no place for the start, where nothing has been sent.
    curves = {name: (c.bits["entropy"][1:], c.loss[1:], c.accuracy[1:]) for name, c in courses.items()}
    title = "Top-k combined with dithering is the best for its bits (Figure 5)"
    figure = _figure(DITHERING, curves, "bits sent per node (entropy of the messages)", title)
    for axes in figure.axes:
        axes.set_xscale("log")
    return Report(
        figure,
        COLUMNS,
        _rows(courses),
        tuple(evaluate_dithering(courses)),
        (
            _SETTING,
            "natural dithering with 2 levels and the largest magnitude as norm; k is 5 % of each tensor",
            "Top-k and the combination run with error feedback, the combination divided by its zeta as the "
            "theory asks; the unbiased ones run without feedback",
        ),
    )


def evaluate_dithering(courses: Mapping[str, TrainingCurve]) -> Iterator[Verdict]:
    """The statement of Section 6.3, by entropy and by packed bytes."""
    combined = "Top-5 % + nat. dithering"
    target = late(courses[combined])
    kinds: tuple[tuple[str, Accounting], ...] = (("bits of entropy", "entropy"), ("packed bits", "wire"))
    for what, kind in kinds:
        spent = {name: spent_until(course, target, kind) for name, course in courses.items()}
        best_other = min(bits for name, bits in spent.items() if name != combined)
        reached = ", ".join(f"{name} {_bits(bits)}" for name, bits in spent.items())
        yield verdict(
            f"Top-k combined with natural dithering needs the fewest {what}",
            f"to loss {target:.3f}: {reached}",
            spent[combined] < best_other,
            "bits until the training loss first falls to the combination's late loss",
        )


def spent_until(course: TrainingCurve, target: float, kind: Accounting) -> float:
    """Bits sent when the loss is first at most ``target``; infinite where it never is."""
    for loss, sent in zip(course.loss, course.bits[kind], strict=True):
        if loss <= target:
            return sent
    return math.inf


def _bits(bits: float) -> str:
    return "never" if math.isinf(bits) else f"{bits:.3g}"


COLUMNS: Final = (
    "method",
    "round",
    "training loss (nats)",
    "test accuracy",
    "entropy (bits per node)",
    "packed (bits per node)",
)


def _rows(courses: Mapping[str, TrainingCurve]) -> list[tuple[Cell, ...]]:
    return [
        (name, *entry)
        for name, course in courses.items()
        for entry in zip(
            course.rounds,
            course.loss,
            course.accuracy,
            course.bits["entropy"],
            course.bits["wire"],
            strict=True,
        )
    ]


EXPERIMENTS: Final = (
    Experiment(
        name="biased-feedback",
        paper=BIASED_PAPER,
        figure="Figure 4, Section 6.2",
        shows="Error feedback keeps Top-k training at the side of SGD; without it, it falls behind.",
        report=report_feedback,
        quick=_QUICK,
        needs=(IMAGES,),
    ),
    Experiment(
        name="biased-dithering",
        paper=BIASED_PAPER,
        figure="Figure 5, Section 6.3",
        shows="Top-k combined with natural dithering reaches a loss with fewer bits than either alone.",
        report=report_dithering,
        quick=_QUICK,
        needs=(IMAGES,),
    ),
)
