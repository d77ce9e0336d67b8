"""Sums of the columns of all nodes, in a fixed order: added to vectors, or subtracted from parameters."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels.received import Received
from laconic.kernels.reference.group_decode import decode_reference
from laconic.kernels.reference.optimizer import apply_reference
from laconic.kernels.tables import SegmentTable, Vectors

OUTSIDE = (
    "a position lies outside its segment or out of order, or a code has no level; positions are ascending "
    "and count from the start of their segment (what fitted has been added)"
)


def add_nodes_reference(
    memory: Vectors | None,
    nodes: Sequence[Received],
    weights: Sequence[float],
    table: SegmentTable,
    levels: Tensor | None,
    block: int | None,
    out: Vectors | None,
    before: Tensor | None,
    commit: bool,
    dtype: torch.dtype,
) -> None:
    """The definition of :func:`laconic.kernels.receive.add_nodes`; ``dtype`` is the accumulation dtype."""
    numbers = [
        decode_reference(node.values, table, levels, node.scale, node.low, block, node.factors, dtype)
        * weight
        for node, weight in zip(nodes, weights, strict=True)
    ]
    for s, numel in enumerate(table.numels):
        total = torch.zeros(numel, dtype=dtype, device=numbers[0].device if numbers else "cpu")
        if memory is not None:
            total = memory.segment(s, numel) if commit else memory.segment(s, numel).clone()
        first, last = table.bounds[s : s + 2].tolist()
        for i, node in enumerate(nodes if first < last else ()):
            if node.positions is None:
                if before is not None and i == 0:
                    before[first:last] = total
                total += numbers[i][first:last]
                continue
            used = first + (last - first if node.counts is None else int(node.counts[s]))
            places = node.positions[first:used]
            if bool(((places < 0) | (places >= numel)).any()) or bool((places[1:] <= places[:-1]).any()):
                raise IndexError(OUTSIDE)
            if before is not None:
                before[i * table.columns + first : i * table.columns + used] = total[places]
            total[places] += numbers[i][first:used]
        if out is not None:
            out.segment(s, numel).copy_(total)


def subtract_nodes_reference(
    parameters: Vectors,
    nodes: Sequence[Received],
    weights: Sequence[float],
    settings: npt.NDArray[np.float64],
    table: SegmentTable,
    levels: Tensor | None,
    block: int | None,
    dtype: torch.dtype,
) -> None:
    """The definition of :func:`laconic.kernels.receive.subtract_nodes`."""
    sums = Vectors.flat(
        torch.empty(int(table.numel_array.sum()), dtype=dtype, device="cpu"), table.offsets[:-1]
    )
    add_nodes_reference(None, nodes, weights, table, levels, block, sums, None, False, dtype)
    apply_reference(parameters, sums, torch.from_numpy(settings).to(dtype), table.numel_array)


def undo_nodes_reference(
    memory: Vectors, nodes: Sequence[Received], table: SegmentTable, before: Tensor
) -> None:
    """The definition of :func:`laconic.kernels.receive.undo_nodes` for sparse columns."""
    for i, node in reversed(list(enumerate(nodes))):
        assert node.positions is not None
        for s, numel in enumerate(table.numels):
            first, last = table.bounds[s : s + 2].tolist()
            used = first + (last - first if node.counts is None else int(node.counts[s]))
            record = before[i * table.columns + first : i * table.columns + used]
            memory.segment(s, numel)[node.positions[first:used]] = record
