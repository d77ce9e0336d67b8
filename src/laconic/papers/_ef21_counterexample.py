"""Where compression without the right feedback fails, and where EF and EF21 are one method."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes

from laconic.compressors import Compressor, Constants, TopK
from laconic.feedback import DCGD, EF14, EF21, Feedback
from laconic.kernels import Stream
from laconic.lab._problem import Problem
from laconic.lab._quadratic import Quadratic
from laconic.lab._simulation import Simulation
from laconic.lab._style import COLOURS, GRADIENT, SERIES
from laconic.messages import Message, Part
from laconic.papers._ef21_common import PAPER, Array, listed, panels, thinned
from laconic.papers._ef21_noise import ideal_level, level, methods
from laconic.papers._experiment import Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._rates import follow
from laconic.theory import ef21_pl_factor, ef21_pl_lyapunov, ef21_pl_stepsize


@dataclass(frozen=True)
class HalfMask(Compressor):
    """Every second coordinate whole, the others at half their size: linear, and contractive.

    A mask that drops coordinates for good would be contractive nowhere else than on the rest.
    """

    def encode(self, x: torch.Tensor, draw: Stream) -> Message:  # noqa: ARG002
        """x times 1, 1/2, 1, 1/2, ..."""
        weights = 1.0 - 0.5 * (torch.arange(x.shape[-1]) % 2).to(x.dtype)
        return Message((Part(d=x.shape[-1], values=x * weights, dtype=x.dtype),))

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """``|C(x) - x|^2 <= |x|^2 / 4``."""
        return Constants(delta=4 / 3)


@dataclass(frozen=True)
class Size:
    """How much of it is run.

    Args:
        stepsizes: of the noisy runs.
        nodes: numbers of nodes of the noisy runs.
        runs: repetitions of each.
        relaxations: rounds of each, times 1 / stepsize.
    """

    stepsizes: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003)
    nodes: tuple[int, ...] = (1, 10, 100)
    runs: int = 16
    relaxations: float = 40.0


FULL = Size()
QUICK = Size(stepsizes=(0.03, 0.01), runs=8, relaxations=20.0)


def counterexample(settings: Settings) -> Report:
    """The experiment, in full or quick."""
    return report(settings, QUICK if settings.quick else FULL)


def report(settings: Settings, size: Size) -> Report:
    """The experiment at any size."""
    figure, axes = panels(
        1, 3, "What compression without feedback does, and what feedback does to noise", 5.0, 4.2
    )
    rows: list[tuple[Cell, ...]] = []
    settings.tell(0.0, "Example 1")
    verdicts = _example1(axes[0, 0], rows)
    settings.tell(0.1, "a linear compressor")
    verdicts += _equivalence(axes[0, 1], rows)
    settings.tell(0.15, "noise")
    verdicts += _noise(size, axes[0, 2], rows)
    return Report(
        figure=figure,
        columns=("part", "method", "stepsize", "nodes", "round", "value"),
        rows=rows,
        verdicts=verdicts,
        notes=(
            "Example 1 is of Beznosikov et al., On Biased Compression (2023), Section 5: x^0 = (1, 1, 1),"
            " Top-1; the value is the squared gradient norm.",
            "Linear compressor: a random quadratic (4 nodes, d = 10), stepsize 0.4; every second coordinate"
            " is sent whole and the others at half their size; the value is the largest difference between"
            " the iterates of EF14 and EF21, relative to the largest coordinate.",
            "Noise: f = |x|^2 / 2 in the plane, Top-1, noise of variance 1 that is uniform on multiples of"
            " (2, 0), (0, 1), (-2, -1); x^0 = (0, -1); the value is the mean of |grad f|^2 over the last"
            " half. It is of Fatkhullin, Tyurin and Richtárik (2023), who propose EF21-SGDM; here its eta is"
            " the stepsize.",
        ),
    )


def iterates(
    feedback: Feedback, problem: Problem, x0: torch.Tensor, stepsize: float, rounds: int
) -> torch.Tensor:
    """x^0 to x^rounds, (rounds + 1, d)."""
    simulation = Simulation(
        problem, feedback, x0[None].clone(), torch.tensor([stepsize], dtype=torch.float64), torch.tensor([0])
    )
    course = [simulation.x[0]]
    for _ in range(rounds):
        simulation.advance(problem.gradients(simulation.x))
        course.append(simulation.x[0])
    return torch.stack(course)


def _example1(axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """On Biased Compression, Example 1: Top-1 without feedback diverges at every stepsize, EF21 converges."""
    problem = Quadratic.example1()
    x0 = torch.ones(3, dtype=torch.float64)
    worst = 0.0
    for stepsize, colour in zip((1e-3, 1e-2, 1e-1), SERIES, strict=False):
        rounds = 300
        course = iterates(DCGD(TopK(1)), problem, x0, stepsize, rounds)
        exact = (1 + 11 * stepsize / 6) ** torch.arange(rounds + 1, dtype=torch.float64)
        worst = max(worst, float((course / exact[:, None] - 1).abs().max()))
        norms = _norms(problem, course)
        axes.plot(norms, color=colour, linestyle="--", label=f"DCGD, stepsize {stepsize:g}")
        rows.extend(
            ("Example 1", "DCGD", stepsize, 3, int(t), float(norms[t])) for t in thinned(rounds + 1, 60)
        )
    mu = problem.mu
    if mu is None:
        raise AssertionError("Example 1 is strongly convex")
    stepsize = ef21_pl_stepsize(1 / 3, problem.L, problem.L_tilde, mu)
    run = follow(problem, EF21(TopK(1)), stepsize, 6000, x0)
    reached = np.flatnonzero(run.norm2 < 1e-20)
    psi = np.array(
        [ef21_pl_lyapunov(1 / 3, stepsize, loss, G) for loss, G in zip(run.loss, run.G, strict=True)]
    )
    # Rounding of the memories, made while they were large, ends the descent at about 1e-30.
    seen = psi[: int(reached[0]) + 1] if len(reached) else psi
    excess = float((seen[1:] / seen[:-1]).max())
    bound = ef21_pl_factor(stepsize, mu)
    axes.plot(run.norm2, color=COLOURS["EF21"], label=f"EF21, stepsize {stepsize:.2g} (theory)")
    rows.extend(
        ("Example 1", "EF21", stepsize, 3, int(t), float(run.norm2[t])) for t in thinned(len(run.norm2), 100)
    )
    axes.set_xscale("log")
    axes.set_ylim(1e-26, 1e30)
    axes.set_xlabel("round")
    axes.set_ylabel(GRADIENT)
    axes.set_title("Example 1, Top-1")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return [
        verdict(
            "Example 1: without feedback x^k = (1 + 11 eta / 6)^k x^0",
            f"largest relative difference over 300 rounds at eta = 0.001, 0.01, 0.1: {worst:.1e}",
            worst < 1e-12,
            "equal to 1e-12",
        ),
        verdict(
            "Example 1: EF21 converges at its theoretical stepsize",
            f"|grad f|^2 is below 1e-20 from round {int(reached[0]) if len(reached) else -1} on",
            len(reached) > 0,
            "it falls below 1e-20",
        ),
        verdict(
            "Example 1: EF21's Lyapunov function contracts as Theorem 2 says",
            f"largest ratio of a round {excess:.6f}, 1 - gamma mu = {bound:.6f}",
            excess <= bound * (1 + 1e-9),
            "at every round until 1e-20 is reached",
        ),
    ]


def _norms(problem: Problem, course: torch.Tensor) -> Array:
    norms: Array = (problem.gradient(course) ** 2).sum(dim=-1).numpy()
    return norms


def _equivalence(axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """EF21's equivalence theorem: one method for a compressor that is homogeneous and additive."""
    problem = Quadratic.random(nodes=4, d=10, mu=0.1, L=1.0, seed=3)
    x0 = torch.linspace(-1, 2, 10, dtype=torch.float64)
    largest = {}
    for name, compressor, stepsize, colour in (
        ("linear", HalfMask(), 0.4, SERIES[1]),
        ("Top-1", TopK(1), 0.1, SERIES[4]),
    ):
        pair = [
            iterates(each, problem, x0, stepsize, 200)
            for each in (EF14(compressor), EF21(compressor, init="compressed"))
        ]
        gap: Array = ((pair[0] - pair[1]).abs().amax(dim=-1) / pair[1].abs().amax()).numpy()
        largest[name] = float(gap.max())
        axes.plot(np.maximum(gap, 1e-18), color=colour, label=name)
        rows.extend(("equivalence", name, stepsize, 4, t, float(gap[t])) for t in range(0, 201, 5))
    axes.set_xlabel("round")
    axes.set_ylabel("relative difference of the iterates")
    axes.set_title("EF14 against EF21")
    axes.legend(frameon=False, fontsize=8)
    return [
        verdict(
            "EF and EF21 are one method for a deterministic, homogeneous and additive compressor",
            f"largest relative difference over 200 rounds {largest['linear']:.1e}",
            largest["linear"] < 1e-13,
            "below 1e-13",
        ),
        verdict(
            "Top-k is not additive, and the two differ",
            f"largest relative difference over 200 rounds {largest['Top-1']:.1e}",
            largest["Top-1"] > 1e-3,
            "above 1e-3",
        ),
    ]


def _noise(size: Size, axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """EF21's noise floor (Fatkhullin, Tyurin and Richtárik, 2023, the counterexample in the plane)."""
    levels: dict[tuple[str, float, int], float] = {}
    for stepsize in size.stepsizes:
        for nodes in size.nodes:
            for name, feedback in methods(stepsize).items():
                value = level(feedback, stepsize, nodes, int(size.relaxations / stepsize), size.runs)
                levels[name, stepsize, nodes] = value
                rows.append(("noise", name, stepsize, nodes, int(size.relaxations / stepsize), value))
    colours = {"ideal EF21-SGD": "black", **COLOURS}
    for stepsize, style in zip(size.stepsizes, ("-", "--", ":", "-."), strict=False):
        for name in methods(stepsize):
            values = [levels[name, stepsize, nodes] for nodes in size.nodes]
            label = name if stepsize == size.stepsizes[0] else None
            axes.plot(
                size.nodes, values, "o", linestyle=style, color=colours[name], markersize=4, label=label
            )
        axes.plot([], [], color="gray", linestyle=style, label=f"stepsize {stepsize:g}")
    axes.set_xscale("log")
    axes.set_xlabel("nodes")
    axes.set_ylabel(f"{GRADIENT} in the long run")
    axes.set_title("noise, Top-1")
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    return _noise_verdicts(size, levels)


def _noise_verdicts(size: Size, levels: dict[tuple[str, float, int], float]) -> list[Verdict]:
    small, larger = size.stepsizes[-1], size.stepsizes[-2]
    few, many = size.nodes[-2:]
    ideal = [
        levels["ideal EF21-SGD", stepsize, nodes] / ideal_level(stepsize, nodes)
        for stepsize in size.stepsizes
        for nodes in size.nodes
    ]
    plain = [
        levels["EF21-SGD", larger, many],
        levels["EF21-SGD", small, many],
        levels["EF21-SGD", small, few],
    ]
    verdicts = [
        verdict(
            "even with the true gradient for a memory, EF21-SGD does not get below sigma^2 / 60",
            f"levels over 1/30 + gamma / (2 - gamma) * (26/30) / n: {min(ideal):.3f} to {max(ideal):.3f}",
            min(ideal) > 0.85 and max(ideal) < 1.15,
            "within 15 % of the exact level, which is at least sigma^2 / 30 for every stepsize and number"
            " of nodes",
        ),
        verdict(
            "EF21-SGD has a floor that falls neither with the stepsize nor with the number of nodes",
            f"{plain[0]:.2e} at stepsize {larger:g} and {plain[1]:.2e} at {small:g} with {many} nodes;"
            f" {plain[2]:.2e} with {few}",
            plain[1] > 0.7 * plain[0] and plain[1] > plain[2] / 3,
            "with most nodes it loses less than 30 % as the stepsize falls to a third, and less than a"
            " factor of 3 as the nodes become ten times as many",
        ),
    ]
    for name in ("EF21-SGDM", "EF14"):
        values = [levels[name, small, nodes] for nodes in size.nodes]
        exponent = float(np.polyfit(np.log(size.nodes), np.log(values), 1)[0])
        verdicts.append(
            verdict(
                f"the floor of {name} falls like 1/n",
                f"at stepsize {small:g}: {listed(values, '.2e')} for n = {listed(size.nodes, 'd')};"
                f" exponent of n {exponent:.2f}",
                abs(exponent + 1) < 0.25,
                "the fitted exponent is within 0.25 of -1",
            )
        )
    return verdicts


COUNTEREXAMPLE = Experiment(
    name="ef21-counterexample",
    paper=PAPER,
    figure="Section 1 and the equivalence theorem; and the limits of EF21 that later papers found",
    shows=(
        "Top-1 without feedback diverges and EF21 does not; EF is EF21 for linear compressors; EF21's"
        " noise floor."
    ),
    run=counterexample,
)
"""Example 1, the equivalence theorem, and the noise floor."""
