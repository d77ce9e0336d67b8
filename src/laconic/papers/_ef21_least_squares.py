"""Least squares, where the PL condition holds (EF21, Figures 7 and 8 of the appendix)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from laconic.lab._result import Result
from laconic.lab._style import COLOURS
from laconic.papers._ef21_common import (
    COLUMNS,
    TOLERANCE,
    Results,
    draw_curve,
    file_of,
    label_curves,
    least_squares,
    rows_of,
    run_resumable,
)
from laconic.papers._experiment import EF21_PAPER, Experiment, Report, Settings, Verdict, verdict
from laconic.papers._figures import panels
from laconic.papers._fits import floor, half_lives

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGENDS: dict[str, dict[str, float]] = {
    "a9a": {"EF21": 4096, "EF14": 4096, "EF21+": 4096, "GD": 1},
    "w8a": {"EF21": 1024, "EF14": 8192, "EF21+": 8192, "GD": 2},
}
"""The multiples in the paper's legends; k = 1 throughout."""

SHARES = (1.0, 0.25, 0.0625)
"""Multiples that run, as shares of the legend's."""


def report(settings: Settings, rounds: int = 20000, data_sets: tuple[str, ...] = tuple(LEGENDS)) -> Report:
    """Runs at the paper's stepsizes and below.

    Args:
        settings: how it runs.
        rounds: rounds of the compressed methods; GD makes a quarter of them.
        data_sets: names of LibSVM files.
    """
    problems = {data_set: least_squares(settings, data_set) for data_set in data_sets}

    def run(data_set: str, name: str) -> Result:
        shares = (1.0, 0.5) if name == "GD" else SHARES
        count = max(1, rounds // 4) if name == "GD" else rounds
        return run_resumable(
            settings,
            f"least-squares-{data_set}-{name}-{count}",
            problems[data_set],
            name,
            multiples=tuple(LEGENDS[data_set][name] * share for share in shares),
            rounds=count,
        )

    runs = settings.grid(data_sets, ("EF21", "EF14", "EF21+", "GD"), run)
    return Report(
        figure=_figure(runs),
        columns=COLUMNS,
        rows=rows_of(runs, 150),
        verdicts=[each for data_set in runs for each in _verdicts(data_set, runs[data_set])],
        notes=(
            "The gradient is X^T (X x - y) / N and L = lambda_max(X^T X / N), as in the authors' code: half"
            " of the gradient of the loss that the paper prints.",
            f"Top-1, 20 nodes, at most {rounds} rounds; x^0 is standard normal with seed 0.",
            *(
                f"{data_set}: L = {problem.L:.6g}, smallest nonzero eigenvalue mu = {problem.mu:.3g} (rank"
                f" {problem.rank} of {problem.d}); the bound theta / (2 mu) on the stepsize is inactive."
                for data_set, problem in problems.items()
            ),
        ),
    )


def _verdicts(data_set: str, results: dict[str, Result]) -> Iterator[Verdict]:
    ef14, gd = results["EF14"], results["GD"]
    stalls = [floor(norms) for norms in ef14.grad_norm2]
    lowest = float(np.nanmin(ef14.grad_norm2))
    for name in ("EF21", "EF21+"):
        result = results[name]
        first, last = half_lives(result.grad_norm2[0])
        end = float(result.final[0])
        yield verdict(
            f"{data_set}: {name} at {result.multiples[0]:g} times the theoretical stepsize keeps converging",
            f"{end:.1e} after {int(result.rounds[0])} rounds; it halves in {first:.0f} rounds in the"
            f" third quarter and in {last:.0f} in the last",
            end < lowest / 3 and bool(np.isfinite(last)),
            f"it ends below a third of the lowest value that EF14 touches at any stepsize ({lowest:.1e}),"
            " and falls through the last quarter",
        )
    yield verdict(
        f"{data_set}: EF stalls, at a floor that rises with the stepsize",
        "EF14's floors: "
        + ", ".join(f"{v:.1e} at {m:g}x" for m, v in sorted(zip(ef14.multiples, stalls, strict=True))),
        bool((ef14.ends == "rounds").all()) and stalls[0] > stalls[1] > stalls[2],
        "none reaches the tolerance, and the medians over the last quarter rise with the multiple",
    )
    bits = float(results["EF21+"].bits("values")[0, results["EF21+"].rounds[0]])
    at = min(int(gd.rounds[1]), int(bits // float(gd.bits("values")[1, 1])))
    yield verdict(
        f"{data_set}: EF21+ needs fewer bits than GD",
        f"after {bits:.3g} bits per node EF21+ is at {float(results['EF21+'].final[0]):.1e},"
        f" GD (the better of its stepsizes) at {min(_at(gd, i, at) for i in range(2)):.1e}",
        float(results["EF21+"].final[0]) < min(_at(gd, i, at) for i in range(2)),
        "the lower value at equal bits",
    )
    legend, half = float(gd.final[0]), float(gd.final[1])
    yield verdict(
        f"{data_set}: GD runs at {gd.multiples[0]:g}/L",
        f"{legend:.1e} at {gd.multiples[0]:g}/L and {half:.1e} at {gd.multiples[1]:g}/L"
        f" after {int(gd.rounds[0])} rounds",
        legend < half,
        "the legend's multiple is better than half of it; at 2/L the component along the steepest"
        " direction keeps its size",
    )


def _at(result: Result, i: int, round: int) -> float:
    return float(result.grad_norm2[i, min(round, int(result.rounds[i]))])


def _figure(runs: Results) -> Figure:
    figure, axes = panels(1, len(runs), 5.6, 4.0, "Least squares, Top-1, 20 nodes", size=12)
    for place, (data_set, results) in zip(axes[0], runs.items(), strict=True):
        for name, result in results.items():
            for i, style in zip(range(len(result.multiples)), ("-", "--", ":"), strict=False):
                draw_curve(
                    place,
                    result.bits("values")[i],
                    result.grad_norm2[i],
                    int(result.rounds[i]),
                    color=COLOURS[name],
                    linestyle=style,
                    linewidth=1.4 if i == 0 else 0.8,
                    label=f"{name}, {result.multiples[i]:g}×",
                )
        label_curves(
            place,
            f"{data_set}; solid: the paper's stepsizes",
            (TOLERANCE / 1e3, 1e3),
            size=12,
            legend=7,
            loc="lower left",
            ncols=2,
        )
    return figure


EXPERIMENTS = (
    Experiment(
        name="ef21-least-squares",
        paper=EF21_PAPER,
        figure="Figures 7 and 8 of the appendix",
        shows="Under the PL condition EF21 and EF21+ keep converging where EF stalls.",
        report=report,
        quick={"rounds": 3000},
        needs=tuple(file_of(data_set) for data_set in LEGENDS),
    ),
)
