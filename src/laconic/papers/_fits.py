"""Fits to the course of a run: floor, half-lives, power law, linear rate."""

import numpy as np

from laconic.lab._types import Array


def floor(norms: Array) -> float:
    """The level at which a run stalls: the median over its last quarter, NaN after a stop left out."""
    known = norms[~np.isnan(norms)]
    return float(np.median(known[-max(1, len(known) // 4) :]))


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


def power(values: Array, share: float = 0.1) -> float:
    """The exponent p of ``values[T - 1] ~ T^p``, by least squares on logarithms.

    T runs from ``share`` of the length to its end, evenly in log T.
    """
    T = np.unique(np.geomspace(max(1.0, share * len(values)), len(values), 200).round().astype(np.int64))
    return float(np.polyfit(np.log(T), np.log(values[T - 1]), 1)[0])


def factor(values: Array, skipped: int = 5, down_to: float = 1e-9) -> float:
    """The factor per round at which values fall, by least squares on logarithms.

    One part in ``skipped`` at the start, and what lies below ``down_to`` times the first value, where
    rounding begins, are left out.
    """
    end = int(np.argmax(values < down_to * values[0])) or len(values)
    t = np.arange(end // skipped, end)
    return float(np.exp(np.polyfit(t, np.log(values[t]), 1)[0]))
