"""Time to a loss: measured seconds of a step times the steps that a study of the loss found."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

SHARE = 0.7
"""The loss to reach is that of the dense method after this share of its steps."""
DENSE = "bf16-adamw"
STUDIED = {"adamw": "recommended", "ef14-sgd-0": "recommended-hook"}
"""The row of ``laconic bench step`` of each method of the study."""


def steps_to(curve: Sequence[tuple[float, float]], loss: float) -> float | None:
    """Steps until the curve of (step, loss), between its points a line, is at the loss; None if it never is.

    Example:
        >>> steps_to([(0, 5.0), (10, 2.0), (20, 1.0)], 1.5)
        15.0
    """
    for (step, before), (following, after) in pairwise(curve):
        if before <= loss:
            return float(step)
        if after <= loss:
            return step + (following - step) * (before - loss) / (before - after)
    return None


def studied_steps(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Steps to the dense method's loss at 70 % of its steps, by method of the study.

    Of the longest runs, at each method's best learning rate, seeds are paired: a method's steps are compared
    with those of the dense run of the same seed.

    Args:
        runs: of the study: "method", "lr", "seed", "steps", "curve" (pairs of step and loss), "validation".

    Returns:
        For each method: "lr", "run_steps", "dense_steps" (70 % of these), "seeds", and "steps", the mean
        over seeds, with "each"; None where a seed did not reach the loss. Methods without a dense run of
        their seeds and length are left out.
    """
    best: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
    by_setting: dict[tuple[str, int, float], dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_setting.setdefault((run["method"], run["steps"], run["lr"]), {})[run["seed"]] = run
    for (method, steps, _), seeds in by_setting.items():
        known = best.get((method, steps))
        # The lowest loss of seed 0, which every setting has.
        if 0 in seeds and (known is None or seeds[0]["validation"] < known[0]["validation"]):
            best[method, steps] = seeds
    found: dict[str, dict[str, Any]] = {}
    # Longer runs replace shorter ones.
    for (method, steps), seeds in sorted(best.items(), key=lambda item: item[0][1]):
        dense = best.get(("dense", steps), {})
        paired = sorted(seeds.keys() & dense.keys())
        if not paired or method == "dense":
            continue
        each = [
            steps_to(_curve(seeds[s]), value_at(_curve(dense[s]), SHARE * dense[s]["steps"])) for s in paired
        ]
        reached = [value for value in each if value is not None]
        found[method] = {
            "lr": seeds[paired[0]]["lr"],
            "run_steps": steps,
            "dense_steps": SHARE * steps,
            "seeds": len(paired),
            "each": each,
            "steps": statistics.fmean(reached) if len(reached) == len(each) else None,
        }
    return found


def value_at(curve: Sequence[tuple[float, float]], step: float) -> float:
    """The curve's value at a step, between its points a line.

    Raises:
        ValueError: outside of the curve.
    """
    for (before, first), (after, second) in pairwise(curve):
        if before <= step <= after:
            return first + (second - first) * (step - before) / (after - before)
    raise ValueError(f"step {step:g} lies outside of the curve")


def time_to_loss(
    rows: Iterable[Mapping[str, Any]], studied: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Seconds to the loss in each cell (model, link) that was measured: a step's seconds times steps.

    Args:
        rows: of ``laconic bench step``.
        studied: of :func:`studied_steps`.

    Returns:
        For each cell and method: "step_ms", "steps", "seconds", and the dense method's "dense_step_ms",
        "dense_steps", "dense_seconds"; "gain" of one over the other; "ceiling", the gain that communication
        without cost would have (the dense step over compute alone), and "of_ceiling".
    """
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for each in rows:
        cells.setdefault((each["model"], each["link"]), {})[each["method"]] = each
    found = []
    for (model, link), by_method in cells.items():
        dense = by_method.get(DENSE)
        for method, name in STUDIED.items():
            row, study = by_method.get(name), studied.get(method, {})
            if dense is None or row is None or study.get("steps") is None:
                continue
            seconds = 1e-3 * row["step_ms"] * study["steps"]
            dense_seconds = 1e-3 * dense["step_ms"] * study["dense_steps"]
            gain, ceiling = dense_seconds / seconds, dense["step_ms"] / dense["compute_ms"]
            found.append(
                {
                    "model": model,
                    "link": link,
                    "method": name,
                    "step_ms": row["step_ms"],
                    "steps": study["steps"],
                    "seconds": seconds,
                    "dense_step_ms": dense["step_ms"],
                    "dense_steps": study["dense_steps"],
                    "dense_seconds": dense_seconds,
                    "gain": gain,
                    "ceiling": ceiling,
                    "of_ceiling": gain / ceiling,
                }
            )
    return found


def _curve(run: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(float(step), float(loss)) for step, loss in run["curve"]]
