"""Scales of features: a warning where they differ too much, and scikit-learn's scalers."""

import warnings
from typing import Literal, get_args

import numpy as np
import scipy.sparse

from laconic.lab._sparse import csr
from laconic.lab._types import CSR, Array

Scale = Literal["none", "maxabs", "standard"]
_LARGEST_RATIO = 1e3
_LARGE = 30.0
"""Values whose curvature, which goes with their square, is a thousand times that of features up to 1."""


def scale_features(X: CSR, scale: Scale) -> CSR:
    """The rows with every feature scaled; zeros stay zeros.

    Args:
        X: rows (N, d).
        scale: "maxabs": by the largest absolute value. "standard": by the standard deviation, without
            centring, which would fill the zeros. "none": as they are.

    Raises:
        ValueError: for another scale.
    """
    if scale not in (choices := get_args(Scale)):
        raise ValueError(f"scale must be one of {', '.join(choices)}, got {scale!r}")
    if scale == "none":
        return X
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    scaler = MaxAbsScaler() if scale == "maxabs" else StandardScaler(with_mean=False)
    # scikit-learn's releases differ in whether they take sparse arrays.
    return csr(scaler.fit_transform(scipy.sparse.csr_matrix(X)))


def warn_of_scales(X: CSR, title: str) -> None:
    """Warn where a feature has values above 30, or 1,000 times as large as another's.

    The stepsize follows the largest feature, and the coordinates of the others then hardly move.
    """
    largest = _largest(X)
    used = np.flatnonzero(largest)
    if used.size == 0:
        return
    low, high = used[largest[used].argmin()], used[largest[used].argmax()]
    if largest[high] <= min(_LARGE, _LARGEST_RATIO * largest[low]):
        return
    warnings.warn(
        f"{title}: the features are large or of very different scales, at most {largest[low]:.3g} in column"
        f" {low} and {largest[high]:.3g} in column {high} (counted from 0), so that a stepsize that suits the"
        " largest hardly moves the rest; pass scale='maxabs' or scale='standard'",
        stacklevel=3,
    )


def _largest(X: CSR) -> Array:
    found: Array = np.asarray(abs(X).max(axis=0).todense(), dtype=np.float64).reshape(-1)
    return found
