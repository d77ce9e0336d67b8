"""Reduction over nodes: the weighted sum of their messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from laconic.kernels.receive import add_nodes, subtract_nodes
from laconic.kernels.tables import SegmentedVector, Vectors
from laconic.messages._group import Group

Groups = Sequence[Group]


def add_nodes_(out: Tensor, nodes: Sequence[Groups], weights: Sequence[float]) -> None:
    """``out <- fl(out + fl(w_i * m_i))`` in place, for the nodes i in ascending order.

    Args:
        out: (..., d).
        nodes: the groups of each node's message, each with the leading dimensions of out.
        weights: a number for each node.
    """
    compiled = out.dim() == 1 and out.is_contiguous()
    for columns in zip(*nodes, strict=True):
        one = columns[0].format
        if compiled:
            vectors = Vectors.flat(out, one.table.start_array)
            add_group(vectors, columns, weights)
            continue
        for group, weight in zip(columns, weights, strict=True):
            group.add_to(out, float(weight))


def add_group(
    memory: Vectors | None,
    columns: Sequence[Group],
    weights: Sequence[float],
    *,
    out: Vectors | None = None,
    before: Tensor | None = None,
    commit: bool = True,
) -> None:
    """Add all nodes' columns of one group to a memory, and write the sums, in one compiled call.

    ``memory <- fl(memory + fl(w_i * number))`` for nodes i in ascending order, from 0 without a memory; then
    ``out <- memory``.

    Args:
        memory: the group's segments of a vector in the accumulation dtype; or None.
        columns: the group of each node, without leading dimensions.
        weights: a number for each node.
        out: where the sums are written; or None.
        before: (n K,), or (K,) for dense groups, gets what stood in the memory.
        commit: whether the memory changes; else sums are written to ``out`` alone.
    """
    first = columns[0]
    add_nodes(
        memory,
        [group.received() for group in columns],
        weights,
        first.format.table,
        levels=first.levels,
        block=first.format.kind.block,
        out=out,
        before=before,
        commit=commit,
    )


@dataclass(frozen=True)
class GroupSum:
    """The weighted sum of all nodes' columns of one group, which nobody has computed yet.

    Args:
        columns: the group of each node, without leading dimensions and in main memory.
        weights: a number for each node.
    """

    columns: Sequence[Group]
    weights: Sequence[float]

    def write(self, out: SegmentedVector) -> None:
        """Write the sums where the group's segments lie."""
        one = self.columns[0].format
        add_group(None, self.columns, self.weights, out=out.vectors(one.places, one.table))

    def subtract_from(self, parameters: Vectors, settings: npt.NDArray[np.float64]) -> None:
        """As :func:`laconic.kernels.receive.subtract_nodes`; arguments are of all segments of the layout."""
        first = self.columns[0]
        places = np.array(first.format.places)
        subtract_nodes(
            replace(parameters, starts=parameters.starts[places]),
            [group.received() for group in self.columns],
            self.weights,
            settings[places],
            first.format.table,
            levels=first.levels,
            block=first.format.kind.block,
        )
