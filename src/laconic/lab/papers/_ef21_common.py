"""What the experiments of EF21 share: data, starts, runs that can be resumed, and the looks of a figure."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.compressors import Identity, TopK
from laconic.feedback import DCGD, EF14, EF21, EF21Plus, Feedback
from laconic.lab._least_squares import LeastSquares
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem
from laconic.lab._result import Result
from laconic.lab._run import run
from laconic.lab.papers._experiment import DataMissingError, Settings

Array = npt.NDArray[np.float64]

PAPER = (
    "Richtárik, Sokolov and Fatkhullin, EF21: A New, Simpler, Theoretically Better, and Practically Faster"
    " Error Feedback, NeurIPS 2021"
)
DATA_SETS = ("phishing", "mushrooms", "a9a", "w8a")
TOLERANCE = 1e-7
"""Where the paper's runs stop, on the square of the gradient's norm."""

# Okabe and Ito's colours, those of lab.plots.
COLOURS = {
    "GD": "#7f7f7f",
    "SGD": "#7f7f7f",
    "DCGD": "#D55E00",
    "EF14": "#E69F00",
    "EF21": "#0072B2",
    "EF21+": "#009E73",
    "EF21-SGD": "#0072B2",
    "EF21-SGDM": "#CC79A7",
}
SERIES = ("#000000", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#0072B2")
"""Colours for what is not a method, in order."""
GRADIENT = r"$\Vert\nabla f(x)\Vert^2$"
PAPER_BITS = "bits sent per node (32 per kept value)"


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


def path_of(settings: Settings, name: str) -> str:
    """The path of a file of the data folder.

    Raises:
        DataMissingError: where there is no data folder, or the file is not in it.
    """
    if settings.data is None or not (settings.data / name).exists():
        where = "no data folder is given" if settings.data is None else f"{settings.data} has no {name}"
        raise DataMissingError(
            f"{where}: this experiment needs {name}. LibSVM files are at"
            " https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html, to be saved as"
            " libsvm/NAME.txt in one folder, whose path goes into the environment variable LACONIC_DATA"
        )
    return str(settings.data / name)


def logistic(settings: Settings, data_set: str) -> LogisticRegression:
    """The paper's problem on a data set: 20 nodes, lambda = 0.1 (Section 5)."""
    return LogisticRegression.from_libsvm(path_of(settings, file_of(data_set)), nodes=20, regularizer=0.1)


def least_squares(settings: Settings, data_set: str) -> LeastSquares:
    """The paper's problem under the PL condition: 20 nodes (appendix)."""
    return LeastSquares.from_libsvm(path_of(settings, file_of(data_set)), nodes=20)


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


def floor(norms: Array) -> float:
    """The level at which a run stalls: the median over its last quarter."""
    known = norms[~np.isnan(norms)]
    return float(np.median(known[-max(1, len(known) // 4) :]))


def panels(
    rows: int, columns: int, title: str, width: float = 4.0, height: float = 3.3
) -> tuple[Figure, Any]:
    """A figure of ``rows`` times ``columns`` axes with logarithmic y: (figure, array of axes)."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat:
        dress(place)
    figure.suptitle(title)
    return figure, axes


def dress(axes: Axes) -> None:
    """Logarithmic y, a light grid, no box."""
    axes.set_yscale("log")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def mark_tolerance(axes: Axes) -> None:
    """The line at which the paper's runs stop."""
    axes.axhline(TOLERANCE, color="black", linestyle=":", linewidth=1)


def listed(values: Sequence[float], form: str = ".2g") -> str:
    """Numbers for a verdict, with commas."""
    return ", ".join(f"{value:{form}}" for value in values)
