"""Arguments of compiled loops over groups: segments, and the columns of several nodes by address."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels.received import Factors, Received, is_dense
from laconic.kernels.tables import Integers, SegmentTable, Vectors

_CODES = (torch.int8, torch.int16, torch.int32)
_NO_BLOCK = 1 << 40
"""More columns than a segment has."""


class Stretches(NamedTuple):
    """A group's segments for compiled loops.

    Args:
        offsets: (S + 1,): where each segment starts among the coordinates of all, and where the last ends.
        bounds: (S + 1,), of the columns.
        blocks: (S + 1,), of the blocks that share a scale.
        block: columns of a block.
    """

    offsets: Integers
    bounds: Integers
    blocks: Integers
    block: int


def stretches_of(table: SegmentTable, block: int | None) -> Stretches:
    """The table's segments, cut into blocks of ``block`` columns; None: one each."""
    return Stretches(table.offsets, table.bounds, table.blocks(block), block or _NO_BLOCK)


class Place(NamedTuple):
    """What is added to and written, for compiled loops; an array without elements for what is not there.

    ``out`` is in the memory's dtype, ``brains`` bfloat16 seen as int16: of the two at most one is there.
    Where ``settings`` (S, 2), decay and rate, are there, sums are subtracted from these parameters.
    """

    memory: npt.NDArray[Any]
    memory_starts: Integers
    out: npt.NDArray[Any]
    brains: npt.NDArray[np.int16]
    out_starts: Integers
    settings: npt.NDArray[Any]
    commit: bool


class Nodes(NamedTuple):
    """Addresses of each node's columns (n,), 0 for none; counts and factors (n, S); weights (n,).

    Values are codes, bfloat16 numbers where ``brains``, else numbers of the accumulation dtype.
    """

    positions: Integers
    values: Integers
    scales: Integers
    lows: Integers
    counts: Integers
    factors: npt.NDArray[Any]
    weights: npt.NDArray[Any]
    one: np.floating[Any]
    brains: bool


def as_array(tensor: Tensor | None, dtype: torch.dtype) -> npt.NDArray[Any]:
    """A tensor of one dimension and this dtype as a contiguous array; one without elements for None."""
    if tensor is None:
        tensor = torch.empty(0, dtype=dtype, device="cpu")
    array: npt.NDArray[Any] = tensor.detach().to(dtype).contiguous().numpy()
    return array


def factor_array(factors: Factors | None, table: SegmentTable, dtype: torch.dtype) -> npt.NDArray[Any]:
    """The factors, or ones, in the dtype: (S,)."""
    kind = np.float64 if dtype == torch.float64 else np.float32
    return np.ones(len(table.numels), kind) if factors is None else factors.astype(kind)


def place_of(
    memory: Vectors | None,
    out: Vectors | None,
    dtype: torch.dtype,
    commit: bool,
    settings: npt.NDArray[np.float64] | None = None,
) -> Place:
    """The memory and ``out``, seen as the loops see them."""
    absent = as_array(None, dtype)
    brains, none = np.empty(0, np.int16), np.zeros(0, np.int64)
    given = absent
    if out is not None:
        given, brains = (out.array, brains) if out.dtype == dtype else (absent, out.array)
    there, starts = (absent, none) if memory is None else (memory.array, memory.starts)
    steps = np.empty((0, 2)) if settings is None else settings
    kind = np.float64 if dtype == torch.float64 else np.float32
    return Place(
        there, starts, given, brains, none if out is None else out.starts, steps.astype(kind), commit
    )


def columns_of(
    nodes: Sequence[Received], weights: Sequence[float], table: SegmentTable, dtype: torch.dtype
) -> tuple[Nodes, npt.NDArray[Any], list[Tensor]]:
    """The nodes' columns by address, an array like their codes, and what must live as long as these."""
    alive: list[Tensor] = []

    def address(tensor: Tensor | None, kind: torch.dtype) -> int:
        if tensor is None:
            return 0
        alive.append(tensor.detach().to(kind).contiguous())
        return alive[-1].data_ptr()

    # Of dense columns neither codes nor bfloat16 numbers are converted: that would take as long a vector.
    kind = nodes[0].values.dtype
    if not is_dense(nodes, table) or kind not in (*_CODES, torch.bfloat16):
        kind = dtype
    factors = np.stack([factor_array(node.factors, table, dtype) for node in nodes])
    counts = np.stack([table.kept_array if node.counts is None else node.counts for node in nodes])
    columns = Nodes(
        np.array([address(node.positions, torch.int64) for node in nodes], np.int64),
        np.array([address(node.values, kind) for node in nodes], np.int64),
        np.array([address(node.scale, dtype) for node in nodes], np.int64),
        np.array([address(node.low, dtype) for node in nodes], np.int64),
        counts,
        factors,
        np.array(weights, factors.dtype),
        factors.dtype.type(1),
        kind == torch.bfloat16,
    )
    return columns, torch.empty(0, dtype=kind if kind in _CODES else dtype, device="cpu").numpy(), alive
