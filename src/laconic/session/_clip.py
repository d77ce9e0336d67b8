"""Gradient clipping by the global norm, as a canonical sum that does not depend on buckets or threads."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from torch import Tensor

from laconic.kernels import SegmentedInput, squared_norm, squared_norms
from laconic.kernels.tables import SegmentedVector, SegmentTable


def clip_factor(squares: Iterable[float], clip: float, scale: float = 1.0) -> float:
    """The factor at which the gradient's norm is at most ``clip``, in (0, 1].

    Args:
        squares: the squared norm of each parameter's gradient, times ``scale`` squared, in the layout's
            order.
        clip: the largest norm, in unscaled units.
        scale: the loss scale.

    Example:
        >>> clip_factor([9.0, 16.0], clip=0.5)
        0.1
    """
    norm = math.sqrt(sum(squares)) / scale
    # A norm that is not finite has to reach the exchange as it is: there the step is void.
    return min(1.0, clip / norm) if norm > 0 and math.isfinite(norm) else 1.0


def squared_norms_of(vector: Tensor | Sequence[Tensor], numels: tuple[int, ...]) -> list[float]:
    """The squared norm of each segment, canonical sums in float64.

    Args:
        vector: flat (d,), or a tensor for each segment, of one dtype and device.
        numels: the segments' lengths.
    """
    table, seen = _table(numels), SegmentedVector.of(vector)
    vectors = seen.vectors(range(len(numels)), table)
    if vectors is not None:
        found: list[float] = squared_norms(SegmentedInput.of(vectors, table)).tolist()
        return found
    parts = enumerate(zip(table.starts, table.numels, strict=True))
    return [float(squared_norm(seen.segment(place, start, numel))) for place, (start, numel) in parts]


@lru_cache(maxsize=64)
def _table(numels: tuple[int, ...]) -> SegmentTable:
    starts, total = [], 0
    for numel in numels:
        starts.append(total)
        total += numel
    return SegmentTable(tuple(starts), numels, numels, tuple(range(len(numels))))
