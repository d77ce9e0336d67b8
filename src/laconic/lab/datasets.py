"""Problems from a LibSVM file or from scikit-learn's data, for the command line."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from laconic.lab._data import DataError, Matrix, naming
from laconic.lab._least_squares import LeastSquares
from laconic.lab._libsvm import load_libsvm
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem
from laconic.lab._scale import Scale, scale_features, warn_of_scales
from laconic.lab._types import Array

Kind = Literal["logistic", "least-squares"]
_LARGE = 1_000_000_000


@dataclass(frozen=True)
class LoadedProblem:
    """A problem, and what to call it."""

    problem: Problem
    title: str


def load_problem(
    file: str | os.PathLike[str] | None,
    kind: Kind = "logistic",
    nodes: int = 20,
    regularizer: float = 0.1,
    scale: Scale = "none",
) -> LoadedProblem:
    """A problem from a LibSVM file, or from scikit-learn's breast cancer data where there is none.

    Those data (569 tumours, 30 features) are standardised, each feature to mean 0 and variance 1.

    Args:
        file: the path of a LibSVM file, or None.
        kind: "logistic" or "least-squares".
        nodes: how many nodes share the rows.
        regularizer: weight of the nonconvex regulariser; for "logistic" only.
        scale: how the features of a file are scaled: "maxabs" or "standard" (without centring), as
            scikit-learn's scalers do, or "none". Of values above 30, or scales that differ by more than a
            factor of 1,000, a warning is given: the stepsize would suit few of the features.

    Raises:
        DataError: where the data or the settings are unfit, or for another ``kind`` or ``scale``.

    Example:
        >>> load_problem(None, nodes=4).problem.d
        30
    """
    _check_choice("kind", kind, Kind)
    _check_choice("scale", scale, Scale)
    if file is not None:
        title = Path(file).name
        X, y = load_libsvm(file)
        if scale == "none":
            warn_of_scales(X, title)
        X = scale_features(X, scale)
        _warn_of_length(X.shape[1], nodes, title)
        with naming(file):
            return LoadedProblem(_problem(kind, X, y, nodes, regularizer), title)
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    labels = labels.astype(np.float64)
    return LoadedProblem(_problem(kind, features, labels, nodes, regularizer), "breast cancer")


def _check_choice(name: str, value: object, choices: Any) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise DataError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _warn_of_length(d: int, nodes: int, title: str) -> None:
    if 8 * d * nodes > _LARGE:
        warnings.warn(
            f"{title} uses index {d}: the vectors of {nodes} nodes take {8 * d * nodes / 1e9:.2g} GB, and a"
            " method holds several at every stepsize; use fewer nodes, multiples or columns",
            stacklevel=3,
        )


def _problem(kind: Kind, X: Matrix, y: Array, nodes: int, regularizer: float) -> Problem:
    if kind == "least-squares":
        return LeastSquares.from_arrays(X, y, nodes)
    return LogisticRegression.from_arrays(X, y, nodes, regularizer)
