"""Addition of the columns of all nodes to vectors, in a fixed order, and its undoing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._addresses import Place, as_array, columns_of, place_of, stretches_of
from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.group_decode import decode
from laconic.kernels.received import Received, is_dense
from laconic.kernels.reference.receive import (
    OUTSIDE,
    add_nodes_reference,
    subtract_nodes_reference,
    undo_nodes_reference,
)
from laconic.kernels.segments import copy_segments
from laconic.kernels.tables import SegmentTable, Vectors

__all__ = ["Received", "add_nodes", "subtract_nodes", "undo_nodes"]

_WORTH = 1 << 14
"""Additions a thread."""
_POSITIONS = np.empty(0, np.int64)


def add_nodes(
    memory: Vectors | None,
    nodes: Sequence[Received],
    weights: Sequence[float],
    table: SegmentTable,
    *,
    levels: Tensor | None = None,
    block: int | None = None,
    out: Vectors | None = None,
    before: Tensor | None = None,
    commit: bool = True,
) -> None:
    """``memory[p] <- fl(memory[p] + fl(w_i v))`` for nodes i in ascending order, written to ``out``.

    v is the number that :func:`laconic.kernels.group_decode.decode` says, w_i the weight rounded to the
    accumulation dtype.

    Args:
        memory: float32 or float64, the accumulation dtype; None: the sum starts from 0.
        nodes: each node's columns, all sparse or all dense, of one dtype.
        weights: of each node.
        table: of the group.
        levels: in the accumulation dtype (2 L + 1,), of the codes -L, ..., L; None where values are numbers.
        block: columns of a segment that share a scale; None: all.
        out: float32, float64, bfloat16 or float16, where the sum is written, rounded; None: nowhere. Without
            memory, the accumulation dtype is float64 where out is, else float32.
        before: in the accumulation dtype, gets what :func:`undo_nodes` needs: (n K,), or of dense columns
            (K,).
        commit: whether the memory changes.

    Raises:
        IndexError: for positions outside their segment or out of order, and for codes without a level; what
            fitted has been added. Triton's form does not look, which would make the host wait: unpacking
            has.
        ValueError: for arguments that do not fit together.

    Example:
        >>> memory, table = torch.ones(4), SegmentTable((0,), (4,), (2,), (0,))
        >>> two = [Received(torch.tensor([2.0, 4.0]), torch.tensor([0, 3])),
        ...        Received(torch.tensor([6.0, 8.0]), torch.tensor([1, 3]))]
        >>> add_nodes(Vectors.flat(memory, table.start_array), two, [0.5, 0.5], table)
        >>> memory
        tensor([2., 4., 1., 7.])
    """
    dtype = _check(memory, nodes, weights, table, block, out, before)

    def reference() -> None:
        add_nodes_reference(memory, nodes, weights, table, levels, block, out, before, commit, dtype)

    like = _like(memory, nodes, out)
    on_device = like is not None and like.device.type != "cpu"
    if not nodes or (out is not None and out.dtype not in (dtype, torch.bfloat16) and not on_device):
        reference()
        return
    dispatch(
        "receive",
        lambda cpu: _compiled(
            cpu, place_of(memory, out, dtype, commit), nodes, weights, table, levels, block, before
        ),
        reference,
        gpu=lambda gpu: gpu.add_nodes(
            memory, nodes, weights, table, levels, block, out, before, commit, dtype
        ),
        tensor=like,
    )


def subtract_nodes(
    parameters: Vectors,
    nodes: Sequence[Received],
    weights: Sequence[float],
    settings: npt.NDArray[np.float64],
    table: SegmentTable,
    *,
    levels: Tensor | None = None,
    block: int | None = None,
) -> None:
    """``parameters <- fl(fl(parameters decay) - fl(sum rate))``, rounded to their dtype at the end.

    The sum is what :func:`add_nodes` makes without a memory, and never written. Where decay is 1 and columns
    are sparse, only what has a column is read.

    Args:
        parameters: float32, float64, bfloat16 or float16.
        nodes, weights, table, levels, block: as for :func:`add_nodes`.
        settings: (S, 2): decay, rate; rounded to the accumulation dtype.

    Raises:
        IndexError, ValueError: as :func:`add_nodes`.

    Example:
        >>> parameters, table = torch.ones(4), SegmentTable((0,), (4,), (1,), (0,))
        >>> two = [Received(torch.tensor([2.0]), torch.tensor([p])) for p in (1, 3)]
        >>> where = Vectors.flat(parameters, table.start_array)
        >>> subtract_nodes(where, two, [0.5, 0.5], np.array([[0.5, 1.0]]), table)
        >>> parameters
        tensor([ 0.5000, -0.5000,  0.5000, -0.5000])
    """
    dtype = _check(None, nodes, weights, table, block, parameters, None)

    def reference() -> None:
        subtract_nodes_reference(parameters, nodes, weights, settings, table, levels, block, dtype)

    if not nodes or parameters.on_device or parameters.dtype not in (dtype, torch.bfloat16):
        reference()
        return
    place = place_of(None, parameters, dtype, False, settings)
    dispatch(
        "receive", lambda cpu: _compiled(cpu, place, nodes, weights, table, levels, block, None), reference
    )


def _compiled(
    cpu: Any,
    place: Place,
    nodes: Sequence[Received],
    weights: Sequence[float],
    table: SegmentTable,
    levels: Tensor | None,
    block: int | None,
    before: Tensor | None,
) -> None:
    dtype = torch.float64 if place.memory.dtype == np.float64 else torch.float32
    group, record = stretches_of(table, block), as_array(before, dtype)
    size = int(group.offsets[-1])
    writes = place.out_starts.size > 0
    work_size = len(nodes) * table.columns + (size // 8 if writes else 0)
    if is_dense(nodes, table):
        columns, like, _alive = columns_of(nodes, weights, table, dtype)
        given = None if levels is None else as_array(levels, dtype)

        def add_dense(first: int, last: int) -> int:
            room = np.empty((2, cpu.TILE), record.dtype)
            return int(cpu.add_dense(place, group, columns, like, given, record, *room, first, last))

        fits = all(_in_shares(add_dense, size, work_size))
    else:
        decoded = _decoded(nodes, table, levels, block, dtype)
        columns, like, _alive = columns_of(decoded, weights, table, dtype)

        def add_sparse(first: int, last: int) -> int:
            room = np.empty(cpu.TILE, record.dtype), np.zeros(len(nodes), np.int64)
            return int(cpu.add_sparse(place, group, columns, _POSITIONS, record, *room, first, last))

        fits = sum(_in_shares(add_sparse, size, work_size)) == int(columns.counts.sum())
    if not fits:
        raise IndexError(OUTSIDE)


def undo_nodes(memory: Vectors, nodes: Sequence[Received], table: SegmentTable, before: Tensor) -> None:
    """Put back what the memory held before :func:`add_nodes` changed it.

    Args:
        memory: as it was given there.
        nodes: as they were given there; only positions and counts are read.
        table: of the group.
        before: what was recorded.

    Raises:
        ValueError: for arguments that do not fit together.
    """
    nodes = [node._replace(scale=None, low=None) for node in nodes]
    dtype = _check(memory, nodes, [0.0] * len(nodes), table, None, None, before)
    if not nodes:
        return
    if is_dense(nodes, table):
        copy_segments(memory, Vectors.flat(before, stretches_of(table, None).offsets[:-1]), table.numel_array)
        return
    if memory.on_device:
        dispatch(
            "receive",
            None,
            lambda: undo_nodes_reference(memory, nodes, table, before),
            gpu=lambda gpu: gpu.undo_nodes(memory, nodes, table, before),
            tensor=before,
        )
        return

    record, kept = as_array(before, dtype), table.kept_array
    first_places = np.repeat(memory.starts, kept)
    numbers = np.arange(table.columns) - np.repeat(table.bounds[:-1], kept)
    for i, node in reversed(list(enumerate(nodes))):
        assert node.positions is not None
        used = slice(None) if node.counts is None else numbers < np.repeat(node.counts, kept)
        places = first_places[used] + node.positions.numpy()[used]
        memory.array[places] = record[i * table.columns : (i + 1) * table.columns][used]


def _like(memory: Vectors | None, nodes: Sequence[Received], out: Vectors | None) -> Tensor | None:
    """A tensor on the device of what is added to, which is that of the columns."""
    where = memory or out
    if where is not None and where.on_device:
        return where.owners[0]
    return nodes[0].values if nodes else None


def _check(
    memory: Vectors | None,
    nodes: Sequence[Received],
    weights: Sequence[float],
    table: SegmentTable,
    block: int | None,
    out: Vectors | None,
    before: Tensor | None,
) -> torch.dtype:
    """The accumulation dtype, once sizes and dtypes are known to fit: loops follow addresses."""
    if memory is None:
        dtype = torch.float64 if out is not None and out.dtype == torch.float64 else torch.float32
    else:
        dtype = memory.dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the memory must be float32 or float64, got {dtype}")
    if len(nodes) != len(weights):
        raise ValueError(f"got the columns of {len(nodes)} nodes and {len(weights)} weights")
    columns, blocks = table.columns, int(table.blocks(block)[-1])
    for number, node in enumerate(nodes):
        fits = node.values.shape == (columns,) and node.values.dtype == nodes[0].values.dtype
        fits &= (node.positions is None) == (nodes[0].positions is None)
        if node.positions is not None:
            fits &= node.positions.shape == (columns,) and node.positions.dtype == torch.int64
        else:
            fits &= (table.kept == table.numels and node.counts is None) or columns == 0
        fits &= all(beside is None or beside.shape == (blocks,) for beside in (node.scale, node.low))
        if node.counts is not None:
            fits &= bool(((node.counts >= 0) & (node.counts <= table.kept_array)).all())
        if not fits:
            raise ValueError(
                f"the columns of node {number} are not those of the group, which has {columns} columns and "
                f"{blocks} scales where there are any, or are unlike those of node 0"
            )
    if before is not None:
        dense = is_dense(nodes, table)
        size = columns if dense else columns * len(nodes)
        if before.shape != (size,) or before.dtype != dtype or not before.is_contiguous():
            raise ValueError(
                f"before must be contiguous, {dtype} ({size},), got {before.dtype} {before.shape}"
            )
    return dtype


def _decoded(
    nodes: Sequence[Received],
    table: SegmentTable,
    levels: Tensor | None,
    block: int | None,
    dtype: torch.dtype,
) -> Sequence[Received]:
    """The nodes with numbers in the place of codes, which are few where columns are sparse."""
    if levels is None:
        return nodes
    return [
        node._replace(
            values=decode(node.values, table, levels, node.scale, node.low, block, node.factors, dtype),
            factors=None,
        )
        for node in nodes
    ]


def _in_shares(work: Callable[[int, int], int], size: int, work_size: int) -> list[int]:
    """``work(first, last)`` on shares of [0, size), one a thread; what each returned."""
    threads = max(1, min(get_threads(), size, work_size // _WORTH))
    found = [0] * threads

    def share(thread: int) -> None:
        found[thread] = work(size * thread // threads, size * (thread + 1) // threads)

    in_threads(share, threads)
    return found
