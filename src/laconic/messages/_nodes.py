"""Reduction over nodes: the weighted sum of their messages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels.receive import add_nodes
from laconic.kernels.tables import Vectors
from laconic.messages._group import Group

if TYPE_CHECKING:
    from laconic.messages._message import Message

Groups = Sequence[Group]


def choose(condition: Tensor, first: "Message", second: "Message") -> "Message":
    """Segment by segment of each row, the first message where ``condition`` holds, else the second.

    Both must come from the same compressor, without draws, on vectors of the same shape.

    Args:
        condition: bool (..., S), segments in the layout's order.
    """
    groups = tuple(_chosen(condition, a, b) for a, b in zip(first.groups, second.groups, strict=True))
    return replace(first, groups=groups)


def _chosen(condition: Tensor, first: Group, second: Group) -> Group:
    one, other = first.format, second.tensors()
    mask = condition[..., list(one.places)]
    columns = mask[..., one.segment_of_column.to(mask.device)]
    scales = mask.repeat_interleave(torch.from_numpy(np.diff(one.scale_bounds)).to(mask.device), dim=-1)
    by_field = {"values": columns, "positions": columns, "counts": mask, "scale": scales, "low": scales}
    chosen: dict[str, Any] = {
        name: torch.where(by_field[name], tensor, other[name]) for name, tensor in first.tensors().items()
    }
    return first.with_tensors(chosen)


def spread(flags: Tensor, message: "Message") -> Tensor:
    """Flags of a message's segments, (..., S), repeated over their coordinates: (..., d)."""
    lengths = np.empty(message.format.segments, np.int64)
    for group in message.groups:
        lengths[list(group.format.places)] = group.format.numels
    return flags.repeat_interleave(torch.from_numpy(lengths).to(flags.device), dim=-1)


def add_nodes_(out: Tensor, nodes: Sequence[Groups], weights: Sequence[float]) -> None:
    """``out <- fl(out + fl(w_i * m_i))`` in place, for the nodes i in ascending order.

    Args:
        out: (..., d).
        nodes: the groups of each node's message, each with the leading dimensions of out.
        weights: a number for each node.
    """
    compiled = out.dim() == 1 and out.device.type == "cpu" and out.is_contiguous()
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
