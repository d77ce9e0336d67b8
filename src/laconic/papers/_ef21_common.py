"""What the experiments of EF21 share: problems, methods, starts, runs that can be resumed, panels."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.compressors import Identity, TopK
from laconic.feedback import DCGD, EF14, EF21, EF21Plus, Feedback
from laconic.lab import _style
from laconic.lab._least_squares import LeastSquares
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem
from laconic.lab._result import Result
from laconic.lab._run import run
from laconic.papers._experiment import Cell, Settings

Array = npt.NDArray[np.float64]

PAPER = (
    "Richtárik, Sokolov and Fatkhullin, EF21: A New, Simpler, Theoretically Better, and Practically Faster"
    " Error Feedback, NeurIPS 2021"
)
DATA_SETS = ("phishing", "mushrooms", "a9a", "w8a")
TOLERANCE = 1e-7
"""Where the paper's runs stop, on the square of the gradient's norm."""

PAPER_BITS = "bits sent per node (32 per kept value)"
COLUMNS = (
    "data set",
    "method",
    "multiple of the theoretical stepsize",
    "round",
    "bits per node (32 per kept value)",
    "squared gradient norm",
)
"""Of a table of runs; its rows are those of `rows_of`."""


def method(name: str, k: int) -> Feedback:
    """A method of the paper with Top-k; GD compresses nothing."""
    if name == "GD":
        return DCGD(Identity())
    makers: dict[str, Callable[[TopK], Feedback]] = {
        "DCGD": DCGD,
        "EF14": EF14,
        "EF21": EF21,
        "EF21+": EF21Plus,
    }
    return makers[name](TopK(k))


def file_of(data_set: str) -> str:
    """Where a data set lies in the data folder."""
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


def resumable(
    settings: Settings, name: str, problem: Problem, feedback: Feedback, **arguments: Any
) -> Result:
    """`run`, keeping what it has done under ``name`` in the checkpoint folder, where there is one."""
    if settings.checkpoint is not None and "checkpoint" in inspect.signature(run).parameters:
        arguments["checkpoint"] = settings.checkpoint / name
    return run(problem, feedback, **arguments)


def thinned(length: int, points: int = 200) -> npt.NDArray[np.int64]:
    """Indices 0 to ``length - 1``, at most about ``points`` of them, even on a logarithmic axis."""
    if length <= points:
        return np.arange(length)
    spread = np.geomspace(1, length - 1, points).round().astype(np.int64)
    return np.unique(np.concatenate([[0], spread]))


def rows_of(runs: Mapping[str, Mapping[str, Result]], points: int) -> list[tuple[Cell, ...]]:
    """Rows of the runs, by data set and method: about so many rounds of each stepsize."""
    rows: list[tuple[Cell, ...]] = []
    for data_set, results in runs.items():
        for name, result in results.items():
            bits = result.bits("values")
            for i, multiple in enumerate(result.multiples):
                for t in thinned(int(result.rounds[i]) + 1, points):
                    norm2 = float(result.grad_norm2[i, t])
                    rows.append((data_set, name, multiple, int(t), float(bits[i, t]), norm2))
    return rows


def floor(norms: Array) -> float:
    """The level at which a run stalls: the median over its last quarter."""
    known = norms[~np.isnan(norms)]
    return float(np.median(known[-max(1, len(known) // 4) :]))


def panels(
    rows: int, columns: int, title: str, width: float = 4.0, height: float = 3.3
) -> tuple[Figure, Any]:
    """A figure of ``rows`` times ``columns`` axes with logarithmic y: (figure, array of axes)."""
    figure, axes = _style.panels(rows, columns, width, height)
    for place in axes.flat:
        place.set_yscale("log")
    figure.suptitle(title)
    return figure, axes


def mark_tolerance(axes: Axes) -> None:
    """The line at which the paper's runs stop."""
    axes.axhline(TOLERANCE, color="black", linestyle=":", linewidth=1)


def listed(values: Sequence[float], form: str = ".2g") -> str:
    """Numbers for a verdict, with commas."""
    return ", ".join(f"{value:{form}}" for value in values)
