"""Optimiser arithmetic on all segments of a bucket in one call: AdamW, momentum, and the parameters' step.

Every product, sum, quotient and square root is rounded by itself, in the order of the formulas. A row of
``settings`` (S, ...) belongs to a segment; its numbers are rounded to the accumulation dtype first.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from laconic.kernels.reference.optimizer import (
    adamw_advance_reference,
    adamw_update_reference,
    apply_reference,
    momentum_update_reference,
    scale_reference,
)
from laconic.kernels.segments import dispatch_elementwise
from laconic.kernels.tables import Integers, Vectors

Settings = npt.NDArray[np.float64]


def adamw_update(
    out: Vectors,
    gradient: Vectors,
    first: Vectors,
    second: Vectors,
    settings: Settings,
    numels: Integers,
    after: Vectors | None = None,
) -> None:
    """AdamW's update of each segment; the moments stay as they are.

    With g = gradient * factor, m and v the moments, the update is
    ``m' / whole_1 / (sqrt(v' / whole_2) + eps) * rate``, where ``m' = m beta_1 + g (1 - beta_1)`` and
    ``v' = v beta_2 + g g (1 - beta_2)``; without beta_1, g stands for ``m' / whole_1``. It is NaN where the
    denominator is not finite.

    Args:
        out: float32 or float64, the accumulation dtype.
        gradient: floating point; other dtypes than out's are widened exactly.
        first: m, in out's dtype; any vector where beta_1 is 0.
        second: v, in out's dtype.
        settings: (S, 9): factor, beta_1, 1 - beta_1, whole_1, beta_2, 1 - beta_2, whole_2, eps, rate.
        numels: int64 (S,), lengths of the segments.
        after: where v' is written, if beta_1 is 0 everywhere; on a GPU in the same launch.

    Example:
        >>> row = np.array([[1.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.0, 0.25]])
        >>> zero, numels = np.array([0]), np.array([2])
        >>> out, g, v = torch.empty(2), torch.tensor([2.0, -3.0]), torch.zeros(2)
        >>> vectors = [Vectors.flat(each, zero) for each in (out, g, v, v)]
        >>> adamw_update(*vectors, row, numels)
        >>> out
        tensor([ 0.2500, -0.2500])
    """
    rows = _rounded(settings, out)

    def reference() -> None:
        adamw_update_reference(out, gradient, first, second, _beside(rows, out), numels)
        if after is not None:
            adamw_advance_reference(first, second, gradient, _beside(rows, out), numels, after)

    dispatch_elementwise(
        "optimizer",
        "adamw_update",
        reference,
        numels,
        (out, gradient, first, second),
        rows,
        gpu=lambda gpu: (
            gpu.adamw_update(out, gradient, first, second, rows, numels)
            if after is None
            else gpu.adamw_both(out, gradient, second, after, rows, numels)
        ),
    )
    if after is not None and not out.on_device:
        adamw_advance(first, second, gradient, settings, numels, after)


def adamw_advance(
    first: Vectors,
    second: Vectors,
    gradient: Vectors,
    settings: Settings,
    numels: Integers,
    after: Vectors | None = None,
) -> None:
    """Replace the moments by m' and v' of :func:`adamw_update`, whose arguments these are.

    v' is written to ``after`` where it is given.
    """
    rows, after = _rounded(settings, second), second if after is None else after
    dispatch_elementwise(
        "optimizer",
        "adamw_advance",
        lambda: adamw_advance_reference(first, second, gradient, _beside(rows, second), numels, after),
        numels,
        (first, second, after, gradient),
        rows,
        gpu=lambda gpu: gpu.adamw_advance(first, second, gradient, rows, numels, after),
    )


def momentum_update(
    out: Vectors, gradient: Vectors, buffer: Vectors, settings: Settings, numels: Integers
) -> None:
    """``out <- fl(fl(fl(buffer mu) + fl(gradient factor)) rate)``.

    Args:
        out: float32 or float64; may be the buffer.
        gradient: floating point; other dtypes than out's are widened exactly.
        buffer: in out's dtype.
        settings: (S, 3): factor, mu, rate.
        numels: int64 (S,), lengths of the segments.
    """
    rows = _rounded(settings, out)
    dispatch_elementwise(
        "optimizer",
        "momentum_update",
        lambda: momentum_update_reference(out, gradient, buffer, _beside(rows, out), numels),
        numels,
        (out, gradient, buffer),
        rows,
        gpu=lambda gpu: gpu.momentum_update(out, gradient, buffer, rows, numels),
    )


def scale_segments(out: Vectors, x: Vectors, settings: Settings, numels: Integers) -> None:
    """``out <- fl(fl(x factor) rate)``.

    Args:
        out: float32 or float64.
        x: floating point; other dtypes than out's are widened exactly.
        settings: (S, 2): factor, rate.
        numels: int64 (S,), lengths of the segments.
    """
    rows = _rounded(settings, out)
    dispatch_elementwise(
        "optimizer",
        "scale",
        lambda: scale_reference(out, x, _beside(rows, out), numels),
        numels,
        (out, x),
        rows,
        gpu=lambda gpu: gpu.scale_segments(out, x, rows, numels),
    )


def apply_steps(parameters: Vectors, steps: Vectors, settings: Settings, numels: Integers) -> None:
    """``parameters <- fl(fl(parameters decay) - fl(steps rate))``, rounded to their dtype at the end.

    Args:
        parameters: float32, float64 or bfloat16.
        steps: in the parameters' accumulation dtype.
        settings: (S, 2): decay, rate.
        numels: int64 (S,), lengths of the segments.
    """
    rows = _rounded(settings, steps)
    dispatch_elementwise(
        "optimizer",
        "apply",
        lambda: apply_reference(parameters, steps, _beside(rows, steps), numels),
        numels,
        (parameters, steps),
        rows,
        gpu=lambda gpu: gpu.apply_steps(parameters, steps, rows, numels),
    )


def _rounded(settings: Settings, like: Vectors) -> npt.NDArray[Any]:
    return settings.astype(np.float64 if like.dtype == torch.float64 else np.float32)


def _beside(rows: npt.NDArray[Any], like: Vectors) -> torch.Tensor:
    return torch.from_numpy(rows).to(like.owners[0].device)
