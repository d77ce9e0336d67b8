"""EF21's two theorems and the tight rate of error feedback: measured rates beside their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from laconic.compressors import TopK
from laconic.feedback import EF21, EF21Plus, Feedback
from laconic.lab._least_squares import LeastSquares
from laconic.lab._quadratic import Quadratic
from laconic.lab._style import COLOURS, GRADIENT, SERIES
from laconic.papers._ef21_common import start
from laconic.papers._experiment import EF21_PAPER, Cell, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import label, panels, thinned
from laconic.papers._fits import factor, power
from laconic.papers._follow import Followed, follow
from laconic.papers._slope import Slope
from laconic.papers._tight_rate import worst_step
from laconic.theory import (
    ef21_bound,
    ef21_lyapunov,
    ef21_pl_factor,
    ef21_pl_lyapunov,
    ef21_pl_stepsize,
    ef21_stepsize,
    tight_rate,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS: dict[str, Feedback] = {"EF21": EF21(TopK(1)), "EF21+": EF21Plus(TopK(1))}
ROUNDING = 1e-12
"""Allowance for rounding in the bounds on Lyapunov functions, relative to the first value."""


def report(settings: Settings, rounds: int = 50000, pl_rounds: int = 10000, states: int = 1000000) -> Report:
    """Theorems 1 and 2 and the tight rate on one node.

    Args:
        settings: how it runs.
        rounds: rounds on the function without a minimiser (Theorem 1).
        pl_rounds: rounds under the PL condition (Theorem 2).
        states: states drawn in the search for the worst step on one node.
    """
    figure, (axes,) = panels(1, 3, 5.0, 4.2, "Rates of EF21 and their bounds, Top-1", size=12)
    rows: list[tuple[Cell, ...]] = []
    settings.report_progress(0.0, "Theorem 1")
    verdicts = _nonconvex(rounds, axes[0], rows)
    settings.report_progress(0.4, "Theorem 2")
    verdicts += _pl(pl_rounds, axes[1], rows)
    settings.report_progress(0.9, "one node")
    verdicts += _one_node(states, axes[2], rows)
    return Report(
        figure=figure,
        columns=("part", "case", "quantity", "abscissa", "value", "bound"),
        rows=rows,
        verdicts=verdicts,
        notes=(
            "Theorem 1: f_i(x) = (1 + |x - c_i|^2)^(-1/8) in R^10 on 5 nodes, infimum 0, at the largest"
            " stepsize that the theorem allows; the abscissa is T.",
            "Theorem 2: a strongly convex quadratic (5 nodes, d = 20), and least squares with more unknowns"
            " than rows, where f is not strongly convex; the abscissa is the round t.",
            "One node: the abscissa is L / mu. The tight rate is of Thomsen, Taylor and Dieuleveut (2025).",
        ),
    )


def _nonconvex(rounds: int, axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """Theorem 1: ``(1/T) sum |grad f(x^t)|^2 <= 2 (f(x^0) - f_inf) / (gamma T) + G^0 / (theta T)``."""
    problem = Slope(0.2 * torch.from_numpy(np.random.default_rng(1).standard_normal((5, 10))), q=0.25)
    alpha = 1 / problem.d
    stepsize = ef21_stepsize(alpha, problem.L, problem.L_tilde)
    T = np.arange(1, rounds + 1)
    exponents, least, shares, falls = [], [], [], []
    for name, feedback in METHODS.items():
        run = follow(problem, feedback, stepsize, rounds, 0.3 * start(problem.d, 0))
        bound = ef21_bound(alpha, stepsize, 1, float(run.loss[0]), float(run.G[0])) / T
        mean, smallest = run.mean[:rounds], run.least[:rounds]
        exponents.append(power(mean))
        least.append(power(smallest))
        shares.append(float((mean / bound).max()))
        falls.append(_largest_rise(run, alpha, stepsize))
        at = thinned(rounds + 1, log=True)[1:] - 1
        look = _look(name, COLOURS[name])
        axes.plot(T[at], mean[at], label=f"{name}, mean of the first T", **look)
        axes.plot(T[at], smallest[at], linestyle="--", label=f"{name}, smallest of them", **look)
        for quantity, values in (("mean square", mean), ("least square", smallest)):
            rows += [("Theorem 1", name, quantity, int(T[i]), float(values[i]), float(bound[i])) for i in at]
    axes.plot(T, bound, color="black", linestyle=":", label="bound of Theorem 1")
    label(axes, "rounds T", GRADIENT, "not convex, no minimiser", log="xy", size=12)
    return [
        verdict(
            "Theorem 1: the mean of |grad f|^2 over T rounds is at most 2 (f(x^0) - f_inf) / (gamma T)",
            f"largest share of the bound: EF21 {shares[0]:.3f}, EF21+ {shares[1]:.3f}",
            max(shares) <= 1,
            "at every T",
        ),
        verdict(
            "Theorem 1: the rate is O(1/T)",
            f"exponent of T over the last decade: mean {exponents[0]:.3f} (EF21) and {exponents[1]:.3f}"
            f" (EF21+), smallest square {least[0]:.3f} and {least[1]:.3f}; gradient descent far out"
            f" {problem.exponent:.3f}",
            max(least) <= -1 and max(abs(p - problem.exponent) for p in least) < 0.05,
            "the smallest square's exponent is at most -1, and within 0.05 of gradient descent's, so that"
            " the bound's exponent is nearly attained; the mean's is shown only, for it tends to -1 from"
            " above, very slowly: T times the mean is a sum that goes on growing, under its bound",
        ),
        verdict(
            "Theorem 1, proof: f(x^t) - f_inf + gamma / (2 theta) G^t falls by gamma/2 |grad f(x^t)|^2 a"
            " round",
            f"largest excess over that, relative to the first value: {max(falls):.1e}",
            max(falls) <= ROUNDING,
            f"at every round, to {ROUNDING:g}",
        ),
    ]


def _look(name: str, colour: str) -> dict[str, Any]:
    """The two methods nearly coincide here: a broad line under a thin one."""
    broad = name == "EF21"
    return {"color": colour, "linewidth": 4.0 if broad else 1.2, "alpha": 0.4 if broad else 1.0}


def _largest_rise(run: Followed, alpha: float, stepsize: float) -> float:
    values = np.array(
        [ef21_lyapunov(alpha, stepsize, gap, G) for gap, G in zip(run.loss, run.G, strict=True)]
    )
    allowed = values[:-1] - stepsize / 2 * run.norm2[:-1]
    return float(((values[1:] - allowed) / values[0]).max())


def _problems() -> dict[str, Quadratic | LeastSquares]:
    """PL problems: one strongly convex, one not."""
    draws = np.random.default_rng(0)
    wide = LeastSquares.from_arrays(draws.standard_normal((10, 20)), draws.standard_normal(10), nodes=5)
    return {
        "quadratic": Quadratic.random(nodes=5, d=20, mu=0.05, L=1.0, seed=1),
        "least squares, 10 rows": wide,
    }


def _pl(rounds: int, axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """Theorem 2: ``Psi^T <= (1 - gamma mu)^T Psi^0``, ``Psi^t = f(x^t) - f* + (gamma / theta) G^t``."""
    fits, worst = [], []
    for (title, problem), colour in zip(_problems().items(), SERIES, strict=False):
        mu = problem.mu
        if mu is None:
            raise AssertionError("the problem is made to be PL")
        alpha = 1 / problem.d
        stepsize = ef21_pl_stepsize(alpha, problem.smoothness.L, problem.L_tilde, mu)
        best = float(problem.loss(problem.minimizer()))
        bound = ef21_pl_factor(stepsize, mu)
        for name, feedback in METHODS.items():
            run = follow(problem, feedback, stepsize, rounds, start(problem.d, 0))
            psi = np.array(
                [
                    ef21_pl_lyapunov(alpha, stepsize, max(0.0, loss - best), G)
                    for loss, G in zip(run.loss, run.G, strict=True)
                ]
            )
            worst.append(float(((psi[1:] - bound * psi[:-1]) / psi[0]).max()))
            fits.append((f"{name}, {title}", factor(psi), bound))
            at = np.arange(0, rounds + 1, max(1, rounds // 300))
            axes.plot(at, psi[at] / psi[0], label=f"{name}, {title}", **_look(name, colour))
            case = ("Theorem 2", f"{name}, {title}", "Psi^t / Psi^0")
            rows += [(*case, int(t), float(psi[t] / psi[0]), bound ** int(t)) for t in at]
        axes.plot(at, bound**at, color=colour, linestyle=":", label=f"bound, {title}")
    label(
        axes,
        "round t",
        r"$\Psi^t/\Psi^0$",
        "PL condition",
        log="y",
        ylim=(1e-14, 3),
        size=12,
        legend=7,
        loc="lower left",
    )
    return [
        verdict(
            "Theorem 2: Psi^{t+1} <= (1 - gamma mu) Psi^t",
            f"largest excess, relative to Psi^0: {max(worst):.1e}",
            max(worst) <= ROUNDING,
            f"at every round, to {ROUNDING:g}",
        ),
        verdict(
            "Theorem 2: the rate is linear, with a factor of at most 1 - gamma mu",
            "; ".join(f"{case}: 1 - {1 - fit:.2e} (bound 1 - {1 - bound:.2e})" for case, fit, bound in fits),
            all(fit <= bound for _, fit, bound in fits),
            "the factor per round that is fitted to Psi (the first fifth aside) is at most the bound",
        ),
    ]


def _one_node(states: int, axes: Axes, rows: list[tuple[Cell, ...]]) -> list[Verdict]:
    """The tight rate: the largest ratio of one step over states and quadratics in the plane, with Top-1."""
    conditions = (2.0, 4.0, 10.0, 30.0, 100.0)
    found: dict[str, list[float]] = {"EF14": [], "EF21": []}
    factors = []
    for condition in conditions:
        stepsize, bound = tight_rate(condition, 1.0, 0.5)
        factors.append(bound)
        for name, ratio in worst_step(condition, stepsize, states).items():
            found[name].append(ratio)
            rows.append(("one node", name, "largest ratio of one step", condition, ratio, bound))
    axes.plot(conditions, 1 - np.array(factors), color="black", linestyle=":", label="tight rate")
    for name, marker in (("EF14", "^"), ("EF21", "o")):
        gaps = 1 - np.array(found[name])
        axes.plot(
            conditions, gaps, marker, color=COLOURS[name], fillstyle="none", label=f"{name}, worst step found"
        )
    gap = "1 - factor of the Lyapunov function"
    label(axes, "condition number L / mu", gap, "one node, Top-1 in the plane", log="xy", size=12)
    near = {name: [r / f for r, f in zip(ratios, factors, strict=True)] for name, ratios in found.items()}
    return [
        verdict(
            f"one node: no step of {name} exceeds the tight factor, and some come near to it",
            f"largest ratio found over the factor, L/mu = 2 to 100: {min(shares):.4f} to {max(shares):.4f}",
            max(shares) <= 1 + 1e-9 and min(shares) > 0.98,
            f"never above 1, and above 0.98 at every condition number, over {states} random states each",
        )
        for name, shares in near.items()
    ]


EXPERIMENTS = (
    Experiment(
        name="ef21-rates",
        paper=EF21_PAPER,
        figure="Theorems 1 and 2",
        shows="O(1/T) for smooth functions and a linear rate under PL, each run beside its bound.",
        report=report,
        quick={"rounds": 4000, "pl_rounds": 3000, "states": 100000},
    ),
)
