"""Least squares, where the PL condition holds (EF21, Figures 7 and 8 of the appendix)."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from laconic.lab._result import Result
from laconic.lab._style import COLOURS, GRADIENT
from laconic.papers._ef21_common import (
    COLUMNS,
    PAPER,
    PAPER_BITS,
    TOLERANCE,
    Array,
    file_of,
    floor,
    least_squares,
    mark_tolerance,
    method,
    panels,
    resumable,
    rows_of,
    thinned,
)
from laconic.papers._experiment import Experiment, Report, Settings, Verdict, verdict

LEGENDS: dict[str, dict[str, float]] = {
    "a9a": {"EF21": 4096, "EF14": 4096, "EF21+": 4096, "GD": 1},
    "w8a": {"EF21": 1024, "EF14": 8192, "EF21+": 8192, "GD": 2},
}
"""The multiples in the paper's legends; k = 1 throughout."""

SHARES = (1.0, 0.25, 0.0625)
"""The multiples that run, as shares of the legend's: what a smaller stepsize would have done."""


@dataclass(frozen=True)
class Size:
    """How much of it is run.

    Args:
        rounds: rounds of the compressed methods; GD makes a quarter of them.
        data_sets: names of LibSVM files.
    """

    rounds: int = 20000
    data_sets: tuple[str, ...] = tuple(LEGENDS)


FULL = Size()
QUICK = Size(rounds=3000)


def least_squares_runs(settings: Settings) -> Report:
    """The experiment, in full or quick."""
    return report(settings, QUICK if settings.quick else FULL)


def report(settings: Settings, size: Size) -> Report:
    """The experiment at any size."""
    runs: dict[str, dict[str, Result]] = {}
    notes: list[str] = []
    for i, data_set in enumerate(size.data_sets):
        problem = least_squares(settings, data_set)
        notes.append(
            f"{data_set}: L = {problem.L:.6g}, smallest nonzero eigenvalue mu = {problem.mu:.3g} (rank"
            f" {problem.rank} of {problem.d}); the bound theta / (2 mu) on the stepsize is inactive."
        )
        runs[data_set] = {}
        for j, (name, multiple) in enumerate(LEGENDS[data_set].items()):
            settings.tell((i + j / 4) / len(size.data_sets), f"{name} on {data_set}")
            shares = (1.0, 0.5) if name == "GD" else SHARES
            rounds = max(1, size.rounds // 4) if name == "GD" else size.rounds
            runs[data_set][name] = resumable(
                settings,
                f"least-squares-{data_set}-{name}-{rounds}",
                problem,
                method(name, 1),
                multiples=tuple(multiple * share for share in shares),
                rounds=rounds,
                stop=TOLERANCE,
            )
    return Report(
        figure=_figure(runs),
        columns=COLUMNS,
        rows=rows_of(runs, 150),
        verdicts=[each for data_set in runs for each in _verdicts(data_set, runs[data_set])],
        notes=(
            "The gradient is X^T (X x - y) / N and L = lambda_max(X^T X / N), as in the authors' code: half"
            " of the gradient of the loss that the paper prints.",
            f"Top-1, 20 nodes, at most {size.rounds} rounds; x^0 is standard normal with seed 0.",
            *notes,
        ),
    )


def half_lives(norms: Array) -> tuple[float, float]:
    """Rounds in which ``|grad f|^2`` halves, over the third and over the last quarter of a run.

    Under linear convergence the two are alike; a run that stalls has none (infinity) in the last.
    """
    known = norms[~np.isnan(norms)]
    quarter = max(1, len(known) // 4)
    ends = [float(np.median(part)) for part in np.array_split(known[2 * quarter :], 4)]
    lives = []
    for before, after in ((ends[0], ends[1]), (ends[2], ends[3])):
        halvings = np.log2(before / after)
        lives.append(float(quarter / 2 / halvings) if halvings > 0 else np.inf)
    return lives[0], lives[1]


def _verdicts(data_set: str, results: dict[str, Result]) -> list[Verdict]:
    ef14, gd = results["EF14"], results["GD"]
    stalls = [floor(norms) for norms in ef14.grad_norm2]
    lowest = float(np.nanmin(ef14.grad_norm2))
    verdicts = []
    for name in ("EF21", "EF21+"):
        result = results[name]
        first, last = half_lives(result.grad_norm2[0])
        end = float(result.final[0])
        verdicts.append(
            verdict(
                f"{data_set}: {name} at {result.multiples[0]:g} times the theoretical stepsize keeps"
                " converging",
                f"{end:.1e} after {int(result.rounds[0])} rounds; it halves in {first:.0f} rounds in the"
                f" third quarter and in {last:.0f} in the last",
                end < lowest / 3 and bool(np.isfinite(last)),
                f"it ends below a third of the lowest value that EF14 touches at any stepsize ({lowest:.1e}),"
                " and falls through the last quarter",
            )
        )
    verdicts.append(
        verdict(
            f"{data_set}: EF stalls, at a floor that rises with the stepsize",
            "EF14's floors: "
            + ", ".join(f"{v:.1e} at {m:g}x" for m, v in sorted(zip(ef14.multiples, stalls, strict=True))),
            bool((ef14.ends == "rounds").all()) and stalls[0] > stalls[1] > stalls[2],
            "none reaches the tolerance, and the medians over the last quarter rise with the multiple",
        )
    )
    bits = float(results["EF21+"].bits("values")[0, results["EF21+"].rounds[0]])
    at = min(int(gd.rounds[1]), int(bits // float(gd.bits("values")[1, 1])))
    verdicts.append(
        verdict(
            f"{data_set}: EF21+ needs fewer bits than GD",
            f"after {bits:.3g} bits per node EF21+ is at {float(results['EF21+'].final[0]):.1e},"
            f" GD (the better of its stepsizes) at {min(_at(gd, i, at) for i in range(2)):.1e}",
            float(results["EF21+"].final[0]) < min(_at(gd, i, at) for i in range(2)),
            "the lower value at equal bits",
        )
    )
    legend, half = float(gd.final[0]), float(gd.final[1])
    verdicts.append(
        verdict(
            f"{data_set}: GD runs at {gd.multiples[0]:g}/L",
            f"{legend:.1e} at {gd.multiples[0]:g}/L and {half:.1e} at {gd.multiples[1]:g}/L"
            f" after {int(gd.rounds[0])} rounds",
            legend < half,
            "the legend's multiple is better than half of it; at 2/L the component along the steepest"
            " direction keeps its size",
        )
    )
    return verdicts


def _at(result: Result, i: int, round: int) -> float:
    return float(result.grad_norm2[i, min(round, int(result.rounds[i]))])


def _figure(runs: dict[str, dict[str, Result]]) -> Figure:
    figure, axes = panels(1, len(runs), "Least squares, Top-1, 20 nodes", width=5.6, height=4.0)
    for place, (data_set, results) in zip(axes[0], runs.items(), strict=True):
        for name, result in results.items():
            for i, style in zip(range(len(result.multiples)), ("-", "--", ":"), strict=False):
                at = thinned(int(result.rounds[i]) + 1, 500)
                at = at[at > 0]
                place.plot(
                    result.bits("values")[i, at],
                    result.grad_norm2[i, at],
                    color=COLOURS[name],
                    linestyle=style,
                    linewidth=1.4 if i == 0 else 0.8,
                    label=f"{name}, {result.multiples[i]:g}×",
                )
        mark_tolerance(place)
        place.set_xscale("log")
        place.set_ylim(TOLERANCE / 1e3, 1e3)
        place.set_title(f"{data_set}; solid: the paper's stepsizes")
        place.set_xlabel(PAPER_BITS)
        place.set_ylabel(GRADIENT)
        place.legend(frameon=False, fontsize=7, loc="lower left", ncols=2)
    return figure


LEAST_SQUARES = Experiment(
    name="ef21-least-squares",
    paper=PAPER,
    figure="Figures 7 and 8 of the appendix",
    shows="Under the PL condition EF21 and EF21+ keep converging where EF stalls.",
    run=least_squares_runs,
    needs=tuple(file_of(data_set) for data_set in LEGENDS),
)
"""Figures 7 and 8."""
