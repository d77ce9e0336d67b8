"""Received columns of one node's group."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from laconic.kernels.tables import Integers, SegmentTable

Factors = npt.NDArray[np.float64]


class Received(NamedTuple):
    """The columns of one node's group.

    Args:
        values: (K,) numbers, or codes: int8, int16 or int32.
        positions: int64 (K,), ascending in each segment and counted from its start; None where columns are
            kept for every coordinate.
        scale: in the accumulation dtype (S,), or one for each block; None: 1.
        low: as scale, what is added to scaled magnitudes; None: nothing.
        counts: int64 (S,), how many columns of each segment are used; None: all.
        factors: (S,) what decoded numbers are multiplied by; None: 1.
    """

    values: Tensor
    positions: Tensor | None = None
    scale: Tensor | None = None
    low: Tensor | None = None
    counts: Integers | None = None
    factors: Factors | None = None


def is_dense(nodes: Sequence[Received], table: SegmentTable) -> bool:
    """Whether columns are kept for every coordinate."""
    return bool(nodes) and nodes[0].positions is None and table.columns > 0
