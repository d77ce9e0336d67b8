"""Decoding of a group's columns: the numbers that values or codes stand for."""

import torch
from torch import Tensor

from laconic.kernels.received import Factors
from laconic.kernels.tables import SegmentTable, columns_used


def decode_reference(
    values: Tensor,
    table: SegmentTable,
    levels: Tensor | None,
    scale: Tensor | None,
    low: Tensor | None,
    block: int | None,
    factors: Factors | None,
    dtype: torch.dtype,
) -> Tensor:
    """The definition of :func:`laconic.kernels.group_decode.decode`, on any device."""
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
    segment, number, _ = columns_used(table.bounds, table.kept_array)
    return segment if block is None else torch.from_numpy(table.blocks(block))[segment] + number // block
