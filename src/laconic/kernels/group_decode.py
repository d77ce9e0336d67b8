"""Decoding of a group's columns: the numbers that values or codes stand for."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.tables import Integers, SegmentTable

Factors = npt.NDArray[np.float64]

_WORTH = 1 << 16
"""Codes a thread."""
_NO_BLOCK = 1 << 40
"""More columns than a segment has."""
_CODES = (torch.int8, torch.int16, torch.int32)


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
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(table.numel_array)))
    return Stretches(offsets, table.bounds, table.blocks(block), block or _NO_BLOCK)


def decode(
    values: Tensor,
    table: SegmentTable,
    levels: Tensor | None,
    scale: Tensor | None,
    low: Tensor | None,
    block: int | None,
    factors: Factors | None,
    dtype: torch.dtype,
    out: Tensor | None = None,
) -> Tensor:
    """The numbers of all columns.

    With levels, ``fl(level scale)``, or ``sign(code) fl(low + fl(|level| scale))`` where there are lowest
    magnitudes; either, or the number itself, times the factor of its segment.

    Args:
        values: (..., K) numbers; or codes, int8, int16 or int32.
        table: of the group.
        levels: in ``dtype`` (2 L + 1,), of the codes -L, ..., L; None where values are numbers.
        scale: in ``dtype`` (..., S), or one for each block; None: 1.
        low: as scale; None: nothing is added.
        block: columns of a segment that share a scale; None: all.
        factors: (S,); None: 1. They are rounded to ``dtype``.
        dtype: float32 or float64.
        out: of ``dtype``, (..., K), to write to; or None.

    Raises:
        IndexError: for a code without a level.

    Example:
        >>> codes, scale = torch.tensor([1, -1, 1, 0], dtype=torch.int8), torch.tensor([3.0, 5.0])
        >>> table = SegmentTable((0, 2), (2, 2), (2, 2), (0, 1))
        >>> decode(codes, table, torch.tensor([-1.0, 0.0, 1.0]), scale, None, None, None, torch.float32)
        tensor([ 3., -3.,  5.,  0.])
    """
    numbers = torch.empty(values.shape, dtype=dtype, device=values.device) if out is None else out
    if levels is None or values.device.type != "cpu" or values.dim() != 1 or values.dtype not in _CODES:
        return numbers.copy_(decode_plainly(values, table, levels, scale, low, block, factors, dtype))

    def compiled(loops: Any) -> None:
        codes, group = values.detach().contiguous().numpy(), stretches_of(table, block)
        given = [as_array(tensor, dtype) for tensor in (levels, scale, low)]
        own = (codes, *given, factor_array(factors, table, dtype), group)
        threads = max(1, min(get_threads(), codes.size // _WORTH))
        fits = [False] * threads

        def share(thread: int) -> None:
            first, last = codes.size * thread // threads, codes.size * (thread + 1) // threads
            room = np.empty_like(given[0])
            fits[thread] = loops.decode(*own, room, first, last, numbers.numpy())

        in_threads(share, threads)
        if not all(fits):
            raise IndexError("a code has no level")

    def plainly() -> None:
        numbers.copy_(decode_plainly(values, table, levels, scale, low, block, factors, dtype))

    dispatch("decoding", compiled, plainly)
    return numbers


def as_array(tensor: Tensor | None, dtype: torch.dtype) -> npt.NDArray[Any]:
    """A tensor of one dimension and this dtype as a contiguous array; one without elements for None."""
    if tensor is None:
        tensor = torch.empty(0, dtype=dtype)
    array: npt.NDArray[Any] = tensor.detach().to(dtype).contiguous().numpy()
    return array


def factor_array(factors: Factors | None, table: SegmentTable, dtype: torch.dtype) -> npt.NDArray[Any]:
    """The factors, or ones, in the dtype: (S,)."""
    kind = np.float64 if dtype == torch.float64 else np.float32
    return np.ones(len(table.numels), kind) if factors is None else factors.astype(kind)


def decode_plainly(
    values: Tensor,
    table: SegmentTable,
    levels: Tensor | None,
    scale: Tensor | None,
    low: Tensor | None,
    block: int | None,
    factors: Factors | None,
    dtype: torch.dtype,
) -> Tensor:
    """As :func:`decode`, in plain PyTorch on any device."""
    if levels is None:
        numbers = values.to(dtype)
    else:
        codes, middle = values.to(torch.int64), len(levels) // 2
        if bool((codes.abs() > middle).any()):
            raise IndexError("a code has no level")
        own = None if scale is None else _blocks_of_columns(table, block).to(values.device)
        numbers = levels[codes + middle] if low is None else levels[codes.abs() + middle]
        if scale is not None:
            numbers = numbers * scale[..., own]
        if low is not None:
            numbers = low[..., own] + numbers
            numbers = torch.where(codes < 0, -numbers, numbers)
    if factors is not None and bool((factors != 1.0).any()):
        each = torch.from_numpy(factors).to(values.device, dtype)
        numbers = numbers * each.repeat_interleave(torch.from_numpy(table.kept_array).to(values.device))
    return numbers


def _blocks_of_columns(table: SegmentTable, block: int | None) -> Tensor:
    """The block of each column: int64 (K,)."""
    kept, bounds = torch.from_numpy(table.kept_array), torch.from_numpy(table.bounds)
    blocks = torch.from_numpy(table.blocks(block))
    segment = torch.arange(len(kept)).repeat_interleave(kept)
    return blocks[segment] + (torch.arange(len(segment)) - bounds[segment]) // (block or _NO_BLOCK)
