"""The Markov compressor: its distortion goes to zero along a converging sequence (EF21, Section 3)."""

from dataclasses import dataclass

import numpy as np
import torch

from laconic.compressors import TopK
from laconic.feedback import EF21
from laconic.lab._style import SERIES
from laconic.papers._ef21_common import PAPER, Array, listed, panels
from laconic.papers._experiment import Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.theory import beta, theta

KEPT = (1, 5, 20)
D = 100
RATE = 0.99
"""The factor at which v^t comes nearer to v* in each round."""


@dataclass(frozen=True)
class Course:
    """Distortions along the sequence, squared and relative to ``|v^t|^2``; the bound is on ``markov``.

    Args:
        k: Top-k.
        plain: ``|C(v^t) - v^t|^2 / |v^t|^2``.
        markov: ``|M(v^t) - v^t|^2 / |v^t|^2``.
        bound: what the recursion allows for ``markov``.
        limit: ``|C(v*) - v*|^2 / |v*|^2``.
    """

    k: int
    plain: Array
    markov: Array
    bound: Array
    limit: float


def sequence(rounds: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A sequence v^t = v* + RATE^t u, (rounds, D), and its limit v*, (D,), u and v* standard normal."""
    limit, away = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, D)))
    powers = RATE ** torch.arange(rounds, dtype=torch.float64)
    return limit + powers[:, None] * away, limit


def course(k: int, rounds: int) -> Course:
    """Follow the sequence with plain Top-k and with its Markov compressor.

    M is EF21's memory: ``M(v^0) = C(v^0)``, ``M(v^{t+1}) = M(v^t) + C(v^{t+1} - M(v^t))``. The bound is the
    paper's recursion ``|M(v^{t+1}) - v^{t+1}|^2 <= (1 - theta) |M(v^t) - v^t|^2 + beta |v^{t+1} - v^t|^2``
    from the first distortion on.
    """
    v, limit = sequence(rounds)
    compressor = TopK(k)
    tracked = EF21(compressor, init="compressed")
    sender, receiver = tracked.sender(D), tracked.receiver(D, nodes=1)
    memory = torch.stack([receiver.receive([sender.send(row)]) for row in v])
    markov = _square(memory - v)
    plain = _square(compressor.compress(v).dense() - v)
    alpha = k / D
    bound, steps = [float(markov[0])], _square(v[1:] - v[:-1])
    for step in steps:
        bound.append((1 - theta(alpha)) * bound[-1] + beta(alpha) * float(step))
    size = _square(v)
    kept = compressor.compress(limit).dense()
    return Course(
        k, plain / size, markov / size, np.array(bound) / size, float(_square(kept - limit) / _square(limit))
    )


def _square(x: torch.Tensor) -> Array:
    squares: Array = (x**2).sum(dim=-1).numpy()
    return squares


def markov(settings: Settings) -> Report:
    """The experiment, in full or quick."""
    return report(settings, 1500 if settings.quick else 3000)


def report(settings: Settings, rounds: int) -> Report:
    """The experiment at any size."""
    courses = []
    for i, k in enumerate(KEPT):
        settings.tell(i / len(KEPT), f"Top-{k}")
        courses.append(course(k, rounds))
    figure, axes = panels(1, 1, f"A converging sequence in R^{D}, compressed round by round", 6.6, 4.4)
    place = axes[0, 0]
    rows: list[tuple[Cell, ...]] = []
    for each, colour in zip(courses, SERIES, strict=False):
        place.plot(each.plain, color=colour, linestyle="--", label=f"Top-{each.k}")
        place.plot(each.markov, color=colour, label=f"Markov compressor of Top-{each.k}")
        place.plot(each.bound, color=colour, linestyle=":", label=f"bound for Top-{each.k}")
        for t in range(0, rounds, max(1, rounds // 150)):
            rows.append((each.k, t, float(each.plain[t]), float(each.markov[t]), float(each.bound[t])))
    place.set_xlabel("round t")
    place.set_ylabel(r"squared distortion, relative to $\Vert v^t\Vert^2$")
    place.set_ylim(1e-14, 10)
    place.legend(frameon=False, fontsize=8)
    return Report(
        figure=figure,
        columns=(
            "k",
            "round",
            "plain distortion (relative)",
            "Markov distortion (relative)",
            "bound (relative)",
        ),
        rows=rows,
        verdicts=_verdicts(courses),
        notes=(
            f"v^t = v* + {RATE}^t u in R^{D}, v* and u standard normal with seed 0; distortions are squared"
            " norms over the squared norm of v^t.",
        ),
    )


def _verdicts(courses: list[Course]) -> list[Verdict]:
    near = [each.plain[-1] / each.limit - 1 for each in courses]
    under = [float((each.markov / each.bound)[1:].max()) for each in courses]
    # The last two thirds, after the memory has caught up; rounding is far below.
    slopes = [_factor(each.markov) for each in courses]
    return [
        verdict(
            "the distortion of the Markov compressor goes to zero, linearly where the sequence converges so",
            f"factor per round {listed(slopes, '.5f')} for k = {listed(KEPT, 'd')}; the sequence's own,"
            f" squared: {RATE**2:.5f}; last values"
            f" {listed([float(each.markov[-1]) for each in courses], '.1e')}",
            all(
                slope < 1 and each.markov[-1] < 1e-2 * each.plain[-1]
                for slope, each in zip(slopes, courses, strict=True)
            ),
            "the factor fitted over the last two thirds is below 1, and the last distortion below a"
            " hundredth of plain Top-k's",
        ),
        verdict(
            "the distortion of plain Top-k does not",
            f"it ends at {listed([float(each.plain[-1]) for each in courses], '.4f')}, within"
            f" {max(abs(x) for x in near):.1e} of |C(v*) - v*|^2 / |v*|^2",
            all(each.plain[-1] > 0.99 * each.limit > 0 for each in courses),
            "it ends within 1 % of its value at the limit, which is not zero",
        ),
        verdict(
            "|M(v^{t+1}) - v^{t+1}|^2 <= (1 - theta) |M(v^t) - v^t|^2 + beta |v^{t+1} - v^t|^2",
            f"largest share of the bound after the first round: {listed(under, '.2f')}",
            max(under) <= 1 + 1e-9,
            "no round exceeds the recursion",
        ),
    ]


def _factor(values: Array) -> float:
    """The factor per round at which values fall over their last two thirds, least squares on logarithms."""
    t = np.arange(len(values) // 3, len(values))
    return float(np.exp(np.polyfit(t, np.log(values[t]), 1)[0]))


MARKOV = Experiment(
    name="ef21-markov",
    paper=PAPER,
    figure="Section 3, the Markov compressor",
    shows=(
        "Compressing differences, the distortion of a converging sequence vanishes; compressing it"
        " plainly, never."
    ),
    run=markov,
)
"""Section 3."""
