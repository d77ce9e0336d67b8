"""Sections of frames packed and unpacked on a device, in a fixed number of launches a group.

Positions that follow a plan, numbers, and codes that need no base are packed there. What varies in size,
seeds, and codes of grids with a window go by way of main memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.formats import GroupFormat
from laconic.formats.sizes import FRAME_BYTES, symbol_bits, value_bytes
from laconic.kernels._dispatch import on_gpu
from laconic.messages import Group
from laconic.wire._values import level_count

_WIDEST = 32
"""Low bits of a position that the kernels take."""


def device_kernels(like: Tensor, formats: Sequence[GroupFormat]) -> Any:
    """``laconic.kernels.gpu`` where it packs groups of these formats on the tensor's device; else None."""
    if like.device.type == "cpu" or not all(map(_fits, formats)):
        return None
    return on_gpu(like)


def _fits(one: GroupFormat) -> bool:
    kind = one.kind
    if kind.has_counts or kind.sends_seed or kind.adaptive:
        return False
    if kind.grid is not None and kind.grid.window(kind.dtype) is not None:
        return False
    return not kind.has_positions or int(one.plan.widths.max(initial=0)) <= _WIDEST


def frame_words(nbytes: int) -> int:
    """Words of 32 bits for a frame, with one to spare: bits of a number may reach into the next word."""
    return nbytes // 4 + 2


def put_sections(
    kernels: Any, groups: Sequence[Group], formats: Sequence[GroupFormat], start: int, nbytes: int
) -> Tensor:
    """The frame of so many bytes, zeros up to ``start``, then a section for each group: int32 (words,)."""
    words = torch.zeros(frame_words(nbytes), dtype=torch.int32, device=groups[0].values.device)
    byte = start
    for group, one in zip(groups, formats, strict=True):
        kind = one.kind
        if kind.has_positions:
            kernels.put_positions(words, byte, group.positions, one.plan)
            byte += one.plan.nbytes
        for scale in (group.scale, group.low):
            if scale is not None:
                kernels.put_numbers(words, byte, scale)
                byte += scale.nbytes
        if kind.grid is None:
            kernels.put_numbers(words, byte, group.values)
        else:
            symbols = kind.grid.symbols(kind.dtype)
            kernels.put_codes(words, byte, group.values, symbols, *symbol_bits(symbols))
        byte += value_bytes(kind, one.columns)
    return words


def rows_for(frames: Sequence[Tensor], device: torch.device) -> Tensor:
    """Frames in main memory as int32 (n, words) on the device, with words to spare; one copy."""
    words = frame_words(max(frame.numel() for frame in frames))
    host = torch.empty(len(frames), words, dtype=torch.int32, pin_memory=device.type == "cuda", device="cpu")
    for row, frame in zip(host.view(torch.uint8), frames, strict=True):
        row[: frame.numel()] = frame
        row[frame.numel() :] = 0
    return host.to(device, non_blocking=True)


def get_sections(
    kernels: Any, rows: Tensor, formats: Sequence[GroupFormat]
) -> tuple[list[list[Group]], Tensor]:
    """The groups of each node's frame; and int32 (n,), not 0 where a frame is none.

    Args:
        kernels: as :func:`device_kernels` found them.
        rows: as :func:`rows_for` makes them.
        formats: of the groups, alike for all nodes.
    """
    flags = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
    byte, found = FRAME_BYTES, []
    for one in formats:
        kind = one.kind
        columns: dict[str, Tensor] = {}
        if kind.has_positions:
            columns["positions"] = kernels.get_positions(rows, byte, one.plan, flags)
            byte += one.plan.nbytes
        for name, there in (("scale", kind.has_scale), ("low", kind.has_low)):
            if there:
                columns[name] = kernels.get_numbers(rows, byte, one.scales, kind.dtype, flags)
                byte += one.scales * kind.dtype.itemsize
        if kind.grid is None:
            columns["values"] = kernels.get_numbers(rows, byte, one.columns, kind.dtype, flags)
        else:
            symbols, top = kind.grid.symbols(kind.dtype), level_count(kind.grid, kind.dtype)
            shared, width = symbol_bits(symbols)
            columns["values"] = kernels.get_codes(rows, byte, one.columns, symbols, shared, width, top, flags)
        byte += value_bytes(kind, one.columns)
        found.append((one, columns))
    nodes = [
        [Group(one, **{name: rows[node] for name, rows in columns.items()}) for one, columns in found]
        for node in range(len(rows))
    ]
    return nodes, flags
