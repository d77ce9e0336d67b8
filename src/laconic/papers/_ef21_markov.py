"""The Markov compressor: its distortion goes to zero along a converging sequence (EF21, Section 3)."""

from dataclasses import dataclass

import numpy as np
import torch

from laconic.compressors import TopK
from laconic.feedback import EF21
from laconic.lab._style import SERIES
from laconic.lab._types import Array
from laconic.papers._experiment import EF21_PAPER, Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, listed, panels
from laconic.papers._fits import factor
from laconic.theory import beta, theta

KEPT = (1, 5, 20)
D = 100
RATE = 0.99
"""The factor at which v^t comes nearer to v* in each round."""


@dataclass(frozen=True)
class Distortions:
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


def distortions(k: int, rounds: int) -> Distortions:
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
    return Distortions(
        k, plain / size, markov / size, np.array(bound) / size, float(_square(kept - limit) / _square(limit))
    )


def _square(x: torch.Tensor) -> Array:
    squares: Array = (x**2).sum(dim=-1).numpy()
    return squares


def report(settings: Settings, rounds: int = 3000) -> Report:
    """Distortions for each k."""
    found = [distortions(k, rounds) for k in settings.track(KEPT, "Top-{}".format)]
    figure, ((place,),) = panels(
        1, 1, 6.6, 4.4, f"A converging sequence in R^{D}, compressed round by round", size=12
    )
    rows: list[tuple[Cell, ...]] = []
    for each, colour in zip(found, SERIES, strict=False):
        place.plot(each.plain, color=colour, linestyle="--", label=f"Top-{each.k}")
        place.plot(each.markov, color=colour, label=f"Markov compressor of Top-{each.k}")
        place.plot(each.bound, color=colour, linestyle=":", label=f"bound for Top-{each.k}")
        for t in range(0, rounds, max(1, rounds // 150)):
            rows.append((each.k, t, float(each.plain[t]), float(each.markov[t]), float(each.bound[t])))
    size = r"squared distortion, relative to $\Vert v^t\Vert^2$"
    label(place, "round t", size, log="y", ylim=(1e-14, 10))
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
        verdicts=_verdicts(found),
        notes=(
            f"v^t = v* + {RATE}^t u in R^{D}, v* and u standard normal with seed 0; distortions are squared"
            " norms over the squared norm of v^t.",
        ),
    )


def _verdicts(found: list[Distortions]) -> list[Verdict]:
    near = [each.plain[-1] / each.limit - 1 for each in found]
    under = [float((each.markov / each.bound)[1:].max()) for each in found]
    # The last two thirds, after the memory has caught up; rounding is far below.
    slopes = [factor(each.markov, skipped=3, down_to=0.0) for each in found]
    return [
        verdict(
            "the distortion of the Markov compressor goes to zero, linearly where the sequence converges so",
            f"factor per round {listed(slopes, '.5f')} for k = {listed(KEPT, 'd')}; the sequence's own,"
            f" squared: {RATE**2:.5f}; last values"
            f" {listed([float(each.markov[-1]) for each in found], '.1e')}",
            all(
                slope < 1 and each.markov[-1] < 1e-2 * each.plain[-1]
                for slope, each in zip(slopes, found, strict=True)
            ),
            "the factor fitted over the last two thirds is below 1, and the last distortion below a"
            " hundredth of plain Top-k's",
        ),
        verdict(
            "the distortion of plain Top-k does not",
            f"it ends at {listed([float(each.plain[-1]) for each in found], '.4f')}, within"
            f" {max(abs(x) for x in near):.1e} of |C(v*) - v*|^2 / |v*|^2",
            all(each.plain[-1] > 0.99 * each.limit > 0 for each in found),
            "it ends within 1 % of its value at the limit, which is not zero",
        ),
        verdict(
            "|M(v^{t+1}) - v^{t+1}|^2 <= (1 - theta) |M(v^t) - v^t|^2 + beta |v^{t+1} - v^t|^2",
            f"largest share of the bound after the first round: {listed(under, '.2f')}",
            max(under) <= 1 + 1e-9,
            "no round exceeds the recursion",
        ),
    ]


EXPERIMENTS = (
    Experiment(
        name="ef21-markov",
        paper=EF21_PAPER,
        figure="Section 3, the Markov compressor",
        shows=(
            "Compressing differences, the distortion of a converging sequence vanishes; compressing it"
            " plainly, never."
        ),
        report=report,
        quick={"rounds": 1500},
    ),
)
