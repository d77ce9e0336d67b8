"""How large a stepsize each method bears (EF21, Figure 1 and Figures 3 to 6 of the appendix)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from laconic.lab._result import Result
from laconic.lab._style import COLOURS, GRADIENT, SERIES
from laconic.papers._ef21_common import (
    COLUMNS,
    DATA_SETS,
    PAPER,
    PAPER_BITS,
    TOLERANCE,
    Array,
    file_of,
    floor,
    listed,
    logistic,
    mark_tolerance,
    method,
    panels,
    resumable,
    rows_of,
    thinned,
)
from laconic.papers._experiment import Experiment, Report, Settings, Verdict, verdict

METHODS = ("EF14", "EF21", "EF21+", "DCGD")


@dataclass(frozen=True)
class Size:
    """How much of it is run.

    Args:
        data_sets: names of LibSVM files.
        multiples: multiples of the theoretical stepsize.
        rounds: rounds of every run.
    """

    data_sets: tuple[str, ...] = DATA_SETS
    multiples: tuple[float, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    rounds: int = 10000


FULL = Size()
QUICK = Size(rounds=3000)

Runs = dict[str, dict[str, Result]]
"""By data set, then by method."""


def stepsize_tolerance(settings: Settings) -> Report:
    """The experiment, in full or quick."""
    return report(settings, QUICK if settings.quick else FULL)


def report(settings: Settings, size: Size) -> Report:
    """The experiment at any size."""
    runs: Runs = {}
    verdicts: list[Verdict] = []
    for i, data_set in enumerate(size.data_sets):
        problem = logistic(settings, data_set)
        runs[data_set] = {}
        for j, name in enumerate(METHODS):
            settings.tell((i + j / len(METHODS)) / len(size.data_sets), f"{name} on {data_set}")
            runs[data_set][name] = resumable(
                settings,
                f"stepsize-{data_set}-{name}-{size.rounds}",
                problem,
                method(name, 1),
                multiples=size.multiples,
                rounds=size.rounds,
                stop=TOLERANCE,
            )
        runs[data_set]["GD"] = resumable(
            settings,
            f"stepsize-{data_set}-GD-{size.rounds}",
            problem,
            method("GD", 1),
            rounds=min(size.rounds, 2000),
            stop=TOLERANCE,
        )
        verdicts += _verdicts(data_set, runs[data_set], problem.L)
    return Report(
        figure=_figure(runs),
        columns=COLUMNS,
        rows=rows_of(runs, 100),
        verdicts=verdicts,
        notes=(
            f"Top-1, 20 nodes, {size.rounds} rounds at most; x^0 is standard normal with seed 0, where the"
            " paper's is unseeded.",
            "The multiples go beyond those of the paper's figure; GD runs at 1/L.",
        ),
    )


def _reached(result: Result) -> list[float]:
    return [m for m, end in zip(result.multiples, result.ends, strict=True) if end == "tolerance"]


def _verdicts(data_set: str, results: dict[str, Result], L: float) -> list[Verdict]:
    ef14, ef21, plus, dcgd = (results[name] for name in METHODS)
    settled = [
        (multiple, floor(norms))
        for multiple, norms in zip(ef14.multiples, ef14.grad_norm2, strict=True)
        if multiple * ef14.base_stepsize <= 2 / L and _settled(norms)
    ]
    rises = len(settled) >= 2 and all(a < b for (_, a), (_, b) in pairwise(settled))
    found = [
        verdict(
            f"{data_set}: EF stalls, at a floor that rises with the stepsize",
            "EF14's floors: "
            + (", ".join(f"{value:.1e} at {m:g}x" for m, value in settled) or "none settled"),
            not _reached(ef14) and rises,
            "no multiple reaches the tolerance; of the stepsizes up to 2/L, at least two have settled (the"
            " third quarter of the rounds touches the median of the last one, and its own is less than twice"
            " that), and their floors rise",
        )
    ]
    best_ef14 = float(np.min([np.nanmin(norms) for norms in ef14.grad_norm2]))
    for name, result in (("EF21", ef21), ("EF21+", plus)):
        below = [
            m
            for m, norms, end in zip(result.multiples, result.grad_norm2, result.ends, strict=True)
            if (end != "diverged" and floor(norms) < best_ef14 / 3) or end == "tolerance"
        ]
        reached = _reached(result)
        found.append(
            verdict(
                f"{data_set}: {name} bears stepsizes far above the theoretical one",
                f"to the tolerance at {listed(reached, 'g') or 'no'} x; to below a third of the lowest value"
                f" that EF14 ever touches ({best_ef14:.1e}) at {listed(below, 'g') or 'no'} x",
                bool(below) and max(below) >= 16,
                "at a multiple of 16 or more it goes below a third of EF14's lowest value at any multiple",
            )
        )
    found.append(
        verdict(
            f"{data_set}: without feedback it does not converge",
            f"DCGD ends between {np.min(dcgd.final):.1e} and"
            f" {np.max(dcgd.final[np.isfinite(dcgd.final)]):.1e}",
            not _reached(dcgd),
            "no multiple reaches the tolerance",
        )
    )
    return found


def _settled(norms: Array) -> bool:
    """Whether a run fluctuates about a level: one that still descends leaves each level behind."""
    known = norms[~np.isnan(norms)]
    quarter = max(1, len(known) // 4)
    third, level = known[-2 * quarter : -quarter], floor(norms)
    return bool(third.min() <= level and np.median(third) < 2 * level)


def _figure(runs: Runs) -> Figure:
    figure, axes = panels(
        len(runs), len(METHODS), "Stepsize tolerance, Top-1, 20 nodes", width=3.6, height=2.7
    )
    for row, (data_set, results) in zip(axes, runs.items(), strict=True):
        lowest = min(float(np.nanmin(result.grad_norm2)) for result in results.values())
        for place, name in zip(row, METHODS, strict=True):
            result = results[name]
            for i, (multiple, colour) in enumerate(zip(result.multiples, SERIES, strict=False)):
                rounds = int(result.rounds[i])
                at = thinned(rounds + 1, 600)
                at = at[at > 0]
                place.plot(
                    result.bits("values")[i, at],
                    result.grad_norm2[i, at],
                    color=colour,
                    linewidth=1.0,
                    label=f"{multiple:g}×",
                )
                if result.ends[i] == "tolerance":
                    place.plot(
                        result.bits("values")[i, rounds], result.final[i], "o", color=colour, markersize=4
                    )
            gd, n = results["GD"], int(results["GD"].rounds[0])
            place.plot(
                gd.bits("values")[0, 1 : n + 1],
                gd.grad_norm2[0, 1 : n + 1],
                color=COLOURS["GD"],
                linestyle="--",
                linewidth=1.0,
                label="GD, 1/L",
            )
            mark_tolerance(place)
            place.set_xscale("log")
            place.set_ylim(lowest / 3, 10)
            place.set_title(f"{name}, {data_set}", fontsize=10)
        row[0].set_ylabel(GRADIENT)
    for place in axes[-1]:
        place.set_xlabel(PAPER_BITS, fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, title="stepsize")
    return figure


STEPSIZE = Experiment(
    name="ef21-stepsize",
    paper=PAPER,
    figure="Figure 1, and Figures 3 to 6 of the appendix",
    shows=(
        "EF stalls at a floor that rises with the stepsize; EF21 and EF21+ converge far above their theory."
    ),
    run=stepsize_tolerance,
    needs=tuple(file_of(data_set) for data_set in DATA_SETS),
)
"""Figure 1."""
