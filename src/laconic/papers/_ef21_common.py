"""Problems, methods, resumable runs, rows and curves shared by the experiments of EF21."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from laconic.compressors import TopK
from laconic.feedback import make_feedback
from laconic.lab._least_squares import LeastSquares
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem
from laconic.lab._result import Result
from laconic.lab._run import run
from laconic.lab._style import GRADIENT
from laconic.lab._types import Array
from laconic.papers._experiment import Cell, Settings
from laconic.papers._figures import label, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA_SETS = ("phishing", "mushrooms", "a9a", "w8a")
TOLERANCE = 1e-7
"""Tolerance of the paper's runs on the square of the gradient's norm."""

PAPER_BITS = "bits sent per node (32 per kept value)"
COLUMNS = (
    "data set",
    "method",
    "multiple of the theoretical stepsize",
    "round",
    "bits per node (32 per kept value)",
    "squared gradient norm",
)
"""Columns of ``rows_of``."""

Results = dict[str, dict[str, Result]]
"""By data set, then by method."""


def file_of(data_set: str) -> str:
    """Path of a data set in the data folder."""
    return f"libsvm/{data_set}.txt"


def logistic(settings: Settings, data_set: str) -> LogisticRegression:
    """The paper's problem on a data set: 20 nodes, lambda = 0.1 (Section 5)."""
    return LogisticRegression.from_libsvm(settings.file(file_of(data_set)), nodes=20, regularizer=0.1)


def least_squares(settings: Settings, data_set: str) -> LeastSquares:
    """The paper's problem under the PL condition: 20 nodes (appendix)."""
    return LeastSquares.from_libsvm(settings.file(file_of(data_set)), nodes=20)


def start(d: int, seed: int) -> torch.Tensor:
    """A standard normal x^0, as the paper's code draws it, but with a seed."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(d))


def run_resumable(
    settings: Settings, name: str, problem: Problem, method: str, k: int = 1, **arguments: Any
) -> Result:
    """Run a method with Top-k to the paper's tolerance, with a checkpoint if there is a folder for them."""
    checkpoint = None if settings.checkpoint is None else settings.checkpoint / name
    feedback = make_feedback(method.lower(), TopK(k))
    return run(problem, feedback, stop=TOLERANCE, checkpoint=checkpoint, **arguments)


def rows_of(runs: Mapping[str, Mapping[str, Result]], points: int) -> list[tuple[Cell, ...]]:
    """Rows of the runs, by data set and method: about so many rounds of each stepsize."""
    return [
        (data_set, name, multiple, int(t), float(result.bits("values")[i, t]), float(result.grad_norm2[i, t]))
        for data_set, results in runs.items()
        for name, result in results.items()
        for i, multiple in enumerate(result.multiples)
        for t in thinned(int(result.rounds[i]) + 1, points, log=True)
    ]


def draw_curve(axes: Axes, bits: Array, norms: Array, rounds: int, points: int = 500, **style: Any) -> None:
    """``|grad f|^2`` over bits, from round 1 on, since a logarithmic axis has no place for the start."""
    at = thinned(rounds + 1, points, log=True)[1:]
    axes.plot(bits[at], norms[at], **style)


def label_curves(axes: Axes, title: str, ylim: tuple[float, float], **options: Any) -> None:
    """Label axes of such curves, and mark the tolerance at which the paper's runs stop."""
    axes.axhline(TOLERANCE, color="black", linestyle=":", linewidth=1)
    label(axes, **{"x": PAPER_BITS, "y": GRADIENT, "title": title, "log": "xy", "ylim": ylim} | options)
