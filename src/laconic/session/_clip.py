"""Gradient clipping by the global norm, as a canonical sum that does not depend on buckets or threads."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from torch import Tensor

from laconic.kernels import SegmentedInput, squared_norm, squared_norms
from laconic.kernels.tables import SegmentedVector, SegmentTable


def global_norm(squares: Iterable[float], scale: float = 1.0) -> float:
    """The norm of a gradient in unscaled units.

    Args:
        squares: the squared norm of each parameter's gradient, times ``scale`` squared, in the layout's
            order.
        scale: the loss scale.
    """
    return math.sqrt(sum(squares)) / scale


def clip_factor(norm: float, clip: float) -> float:
    """The factor at which a gradient of this norm has at most the norm ``clip``, in (0, 1].

    Example:
        >>> clip_factor(5.0, clip=0.5)
        0.1
    """
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
