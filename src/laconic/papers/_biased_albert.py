"""Section 6.5, ALBERT: the paper's communication times against the bytes of its messages."""

from typing import Final

import torch

from laconic.compressors import NaturalCompression
from laconic.feedback import DCGD
from laconic.lab._style import BLUE, GREEN, ORANGE
from laconic.layout import Layout
from laconic.papers._experiment import BIASED_PAPER, Experiment, Report, Settings, verdict
from laconic.papers._figures import label, panels

SECONDS: Final = {"none": 9.62, "natural compression": 4.05, "PowerSGD, rank 8": 1.04}
"""The paper's communication time per round."""

_WIDTH, _INNER, _EMBEDDING, _WORDS, _PLACES, _KINDS = 1024, 4096, 128, 30_000, 512, 2

MATRICES: Final = (
    (_WORDS, _EMBEDDING),
    (_PLACES, _EMBEDDING),
    (_KINDS, _EMBEDDING),
    (_WIDTH, _EMBEDDING),
    *((_WIDTH, _WIDTH),) * 4,
    (_INNER, _WIDTH),
    (_WIDTH, _INNER),
    (_WIDTH, _WIDTH),
)
"""ALBERT-large: embeddings, their map, one layer that all 24 share (attention, two more), the pooler."""

VECTORS: Final = (
    *(_EMBEDDING,) * 2,
    _WIDTH,
    *(_WIDTH,) * 4,
    *(_WIDTH,) * 2,
    _INNER,
    _WIDTH,
    *(_WIDTH,) * 2,
    _WIDTH,
)
"""Norms and biases, in the same order."""

_MEGABYTE: Final = 1e6


def sizes() -> dict[str, float]:
    """Megabytes that a node hands over in a round, for each of the paper's three methods."""
    numbers = sum(m * n for m, n in MATRICES) + sum(VECTORS)
    rank = 8
    # Both factors of each matrix; what would not shrink travels whole, as vectors do.
    low = sum(min(m * n, rank * (m + n)) for m, n in MATRICES) + sum(VECTORS)
    natural = DCGD(NaturalCompression()).format(Layout.flat(numbers), torch.float32, 0).max_nbytes
    return {
        "none": 4 * numbers / _MEGABYTE,
        "natural compression": natural / _MEGABYTE,
        "PowerSGD, rank 8": 4 * low / _MEGABYTE,
    }


def line(found: dict[str, float]) -> tuple[float, float]:
    """Seconds per megabyte and seconds beside, through the paper's largest and smallest times."""
    high, low = "none", "PowerSGD, rank 8"
    slope = (SECONDS[high] - SECONDS[low]) / (found[high] - found[low])
    return slope, SECONDS[low] - slope * found[low]


def report(_: Settings) -> Report:
    """Bytes of the three methods against the paper's times."""
    found = sizes()
    slope, fixed = line(found)
    names = list(SECONDS)
    predicted = fixed + slope * found["natural compression"]
    measured = SECONDS["natural compression"]
    numbers = sum(m * n for m, n in MATRICES) + sum(VECTORS)
    figure, ((axes,),) = panels(1, 1, 6.5, 4.4)
    ends = [0.0, found["none"]]
    line_style = {"color": "black", "linewidth": 1, "label": "line through the ends"}
    axes.plot(ends, [fixed + slope * x for x in ends], "--", **line_style)
    for name, colour in zip(names, (BLUE, ORANGE, GREEN), strict=True):
        axes.plot(found[name], SECONDS[name], "o", color=colour, markersize=8, label=name)
    axes.set_ylim(bottom=0)
    label(
        axes,
        "megabytes per node and round, by arithmetic",
        "communication time per round (s), from the paper",
        "ALBERT-large: the paper's times over the bytes (Section 6.5)",
        size=11,
    )
    verdicts = (
        verdict(
            "ALBERT-large has 18 million parameters",
            f"{numbers:,} by its shapes",
            17.5e6 <= numbers <= 18.5e6,
            "18 million to two digits",
        ),
        verdict(
            "communication takes 9.62, 4.05 and 1.04 s: ordered as the bytes, which shrink more",
            "bytes shrink by "
            + ", ".join(f"{found['none'] / found[n]:.2f} ({n})" for n in names[1:])
            + "; times by "
            + ", ".join(f"{SECONDS['none'] / SECONDS[n]:.2f}" for n in names[1:]),
            all(1 < SECONDS["none"] / SECONDS[n] <= found["none"] / found[n] for n in names[1:])
            and found["PowerSGD, rank 8"] < found["natural compression"],
            "same order, and no time shrinks more than its bytes",
        ),
        verdict(
            "a fixed cost and a cost per byte explain the three times",
            f"{fixed:.2f} s and {slope:.3f} s per megabyte: natural compression {predicted:.2f} s, in "
            f"the paper {measured} s",
            abs(predicted / measured - 1) < 0.25,
            "the middle time within 25 % of the line through the other two",
        ),
    )
    rows = [(name, found[name], SECONDS[name], fixed + slope * found[name]) for name in names]
    columns = ("method", "megabytes per node and round", "seconds in the paper", "seconds by the line")
    notes = (
        "nothing is trained here: `laconic demo` trains a small transformer on real processes and measures "
        "its bytes",
        "natural compression at 9 bits a number, as laconic packs it; PowerSGD at 8 (m + n) floats a matrix",
    )
    return Report(figure, columns, rows, verdicts, notes)


EXPERIMENTS: Final = (
    Experiment(
        name="biased-albert",
        paper=BIASED_PAPER,
        figure="Section 6.5",
        shows="The paper's communication times for ALBERT follow from a fixed cost and a cost per byte.",
        report=report,
        stands_for=(
            "Fine-tuning ALBERT-large on GLUE over ten GPUs is not reproduced: it needs the weights, the "
            "data and the machines. In its place stand `laconic demo`, a small transformer whose bytes are "
            "measured, and here the arithmetic of the paper's bytes against its times."
        ),
    ),
)
