"""Problems from a LibSVM file or from scikit-learn's data, for the command line."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laconic.lab._least_squares import LeastSquares
from laconic.lab._logistic import LogisticRegression
from laconic.lab._problem import Problem


@dataclass(frozen=True)
class LoadedProblem:
    """A problem, and what to call it."""

    problem: Problem
    title: str


def load_problem(
    file: Path | None, kind: str = "logistic", nodes: int = 20, regularizer: float = 0.1
) -> LoadedProblem:
    """A problem from a LibSVM file, or from scikit-learn's breast cancer data where there is none.

    Those data (569 tumours, 30 features) are standardised, each feature to mean 0 and variance 1.

    Args:
        file: a LibSVM file, or None.
        kind: "logistic" or "least-squares".
        nodes: how many nodes share the rows.
        regularizer: weight of the nonconvex regulariser; for "logistic" only.

    Raises:
        DataError: where the data or the settings are unfit.

    Example:
        >>> load_problem(None, nodes=4).problem.d
        30
    """
    if file is not None:
        title = file.name
        if kind == "least-squares":
            return LoadedProblem(LeastSquares.from_libsvm(file, nodes), title)
        return LoadedProblem(LogisticRegression.from_libsvm(file, nodes, regularizer), title)
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    labels = labels.astype(np.float64)
    title = "breast cancer"
    if kind == "least-squares":
        return LoadedProblem(LeastSquares.from_arrays(features, labels, nodes), title)
    return LoadedProblem(LogisticRegression.from_arrays(features, labels, nodes, regularizer), title)
