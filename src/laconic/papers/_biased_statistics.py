"""Table 4: expected savings of Top-k and Rand-k on random vectors, by closed forms and Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy import integrate, special

from laconic.compressors import TopK
from laconic.lab._style import BLUE, GREEN, ORANGE, PINK, RED, SKY
from laconic.papers._experiment import BIASED_PAPER, Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRINTED: Final = {
    ("N(0,1)", 3): (18.65, 31.10, 43.98, 57.08),
    ("N(0,1)", 5): (27.14, 47.70, 69.07, 90.85),
    ("N(2,1)", 3): (53.45, 75.27, 95.81, 115.53),
    ("N(2,1)", 5): (81.60, 118.56, 153.13, 186.22),
}
"""Table 4: the expected savings of Top-k at d = 10^2, 10^3, 10^4 and 10^5."""

DIMENSIONS: Final = (100, 1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Law:
    """The law of one coordinate: what the magnitudes' density and tail are, and how to draw it.

    Args:
        name: its name.
        density: density of |x_i|.
        tail: P(|x_i| > t).
        draw: numbers of a shape.
        second: E x_i^2.
        most: beyond this magnitude nothing counts.
    """

    name: str
    density: Callable[[float], float]
    tail: Callable[[float], float]
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    second: float
    most: float


def _folded(mean: float) -> Law:
    return Law(
        f"N({mean:g},1)",
        lambda t: (
            (math.exp(-((t - mean) ** 2) / 2) + math.exp(-((t + mean) ** 2) / 2)) / math.sqrt(2 * math.pi)
        ),
        lambda t: (math.erfc((t - mean) / math.sqrt(2)) + math.erfc((t + mean) / math.sqrt(2))) / 2,
        lambda rng, shape: rng.normal(mean, 1.0, shape),
        mean**2 + 1.0,
        mean + 12.0,
    )


NORMAL, SHIFTED = _folded(0.0), _folded(2.0)
UNIFORM = Law("U(0,1)", lambda _: 1.0, lambda t: 1.0 - t, lambda rng, shape: rng.random(shape), 1 / 3, 1.0)
EXPONENTIAL = Law(
    "Exp(1)",
    lambda t: math.exp(-t),
    lambda t: math.exp(-t),
    lambda rng, shape: rng.exponential(1.0, shape),
    2.0,
    60.0,
)


def top_savings(law: Law, k: int, d: int) -> float:
    """The expected sum of the k largest squares of d independent coordinates, by quadrature.

    A coordinate of magnitude t is among them where fewer than k of the others are larger.
    """

    def inner(t: float) -> float:
        return t * t * law.density(t) * float(special.bdtr(k - 1, d - 1, law.tail(t)))

    # Nearly all of it lies about where k of d magnitudes are larger: the integral is cut there.
    low, high = 0.0, law.most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if d * law.tail(middle) > k else (low, middle)
    edges = [0.0, *(x for x in (low / 2, low * 0.9, low, low * 1.1 + 0.1, low * 1.5 + 1.0) if x < law.most)]
    edges.append(law.most)
    return d * sum(
        float(integrate.quad(inner, a, b, epsabs=1e-12, epsrel=1e-10)[0]) for a, b in pairwise(edges)
    )


def sampled_savings(law: Law, k: int, d: int, samples: int, seed: int = 0) -> tuple[float, float]:
    """The same from random vectors and the library's Top-k: the mean and its standard error."""
    x = torch.from_numpy(law.draw(np.random.default_rng(seed), (samples, d)))
    kept = TopK(k).compress(x).dense().square().sum(-1)
    return float(kept.mean()), float(kept.std() / math.sqrt(samples))


def report(settings: Settings, numbers: int = 20_000_000) -> Report:
    """Table 4 and the two closed forms.

    Args:
        settings: how it runs.
        numbers: random numbers in each Monte Carlo mean.
    """
    rows: list[tuple[Cell, ...]] = []
    off, sigmas = [], []
    for law, k in settings.track(product((NORMAL, SHIFTED), (3, 5)), lambda case: case[0].name):
        for d, printed in zip(DIMENSIONS, PRINTED[law.name, k], strict=True):
            exact = top_savings(law, k, d)
            mean, error = sampled_savings(law, k, d, max(20, numbers // d))
            rows.append((law.name, k, d, k * law.second, printed, exact, mean, error))
            off.append(abs(exact - printed))
            sigmas.append(abs(mean - exact) / error)
    closed, closed_rows = _evaluate_closed(numbers)
    rows += closed_rows
    verdicts = (
        verdict(
            "Table 4: the 16 expected savings of Top-3 and Top-5 for Gaussian coordinates",
            f"by quadrature at most {max(off):.4f} from the printed numbers",
            max(off) <= 0.0101,
            "within 0.01, the printed digits",
        ),
        verdict(
            "Table 4, by the library's own Top-k",
            f"Monte Carlo at most {max(sigmas):.1f} standard errors from quadrature",
            max(sigmas) < 4.5,
            "each of the 16 means within 4.5 of its standard errors",
        ),
        *closed,
    )
    columns = (
        "law",
        "k",
        "d",
        "expected savings of Rand-k",
        "printed, Top-k",
        "quadrature, Top-k",
        "Monte Carlo, Top-k",
        "its standard error",
    )
    notes = ("savings are sums of kept squares, in units of the coordinates squared",)
    return Report(_plot(), columns, rows, verdicts, notes)


def _evaluate_closed(numbers: int) -> tuple[list[Verdict], list[tuple[Cell, ...]]]:
    """The closed forms for uniform and exponential coordinates."""
    rows: list[tuple[Cell, ...]] = []
    ratios, ones, exponential = [], [], []
    for d in (10, 100, 1000):
        for k in (1, 3, d // 5):
            kept, second = top_savings(UNIFORM, k, d), UNIFORM.second
            lost = (d * second - kept) / ((d - k) * second)
            ratios.append(abs(lost / ((1 - k / (d + 1)) * (1 - k / (d + 2))) - 1))
        ones.append(abs(top_savings(UNIFORM, 1, d) / second / (3 * d / (d + 2)) - 1))
        harmonic = sum(1 / i for i in range(1, d + 1))
        squares = sum(1 / i**2 for i in range(1, d + 1))
        closed = 0.5 * squares + 0.5 * harmonic**2
        exponential.append(abs(top_savings(EXPONENTIAL, 1, d) / EXPONENTIAL.second / closed - 1))
        for law, factor in ((UNIFORM, 3 * d / (d + 2)), (EXPONENTIAL, closed)):
            mean, error = sampled_savings(law, 1, d, max(100, numbers // d))
            exact = top_savings(law, 1, d)
            rows.append((law.name, 1, d, law.second, factor * law.second, exact, mean, error))
    limit = 1e-6
    why = f"closed form against quadrature, relative difference below {limit:g}, d = 10, 100, 1000"
    statements = (
        ("uniform coordinates: lost variance ratio (1 - k/(d+1))(1 - k/(d+2))", ratios),
        ("uniform coordinates: savings ratio 3d/(d+2) at k = 1", ones),
        ("exponential coordinates: savings ratio of order log^2 d at k = 1, in closed form", exponential),
    )
    found = [
        verdict(claim, f"largest relative difference {max(values):.1e}", max(values) < limit, why)
        for claim, values in statements
    ]
    return found, rows


def _plot() -> Figure:
    figure, ((axes,),) = panels(1, 1, 7.0, 4.6)
    shown = ((NORMAL, 3, BLUE), (NORMAL, 5, SKY), (SHIFTED, 3, RED), (SHIFTED, 5, ORANGE))
    places = [round(10 ** (1 + j / 4)) for j in range(17)]
    for law, k, colour in shown:
        ratios = [top_savings(law, k, d) / (k * law.second) for d in places]
        axes.plot(places, ratios, color=colour, linewidth=1.4, label=f"{law.name}, k = {k}")
        printed = [value / (k * law.second) for value in PRINTED[law.name, k]]
        axes.plot(DIMENSIONS, printed, "o", color=colour, markersize=6, markerfacecolor="white")
    for law, colour in ((EXPONENTIAL, GREEN), (UNIFORM, PINK)):
        ratios = [top_savings(law, 1, d) / law.second for d in places]
        axes.plot(places, ratios, "--", color=colour, linewidth=1.4, label=f"{law.name}, k = 1")
    axes.plot([], [], "o", color="black", markerfacecolor="white", label="printed in Table 4")
    title = "How much more Top-k keeps than Rand-k (Table 4)"
    label(axes, "dimension d", "expected savings, Top-k over Rand-k", title, log="xy", size=11)
    return figure


EXPERIMENTS: Final = (
    Experiment(
        name="biased-table4",
        paper=BIASED_PAPER,
        figure="Table 4, Section 4",
        shows="Top-k keeps several times more of a random vector than Rand-k, by closed forms and numbers.",
        report=report,
        quick={"numbers": 2_000_000},
    ),
)
