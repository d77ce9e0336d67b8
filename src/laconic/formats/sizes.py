"""Sizes on the wire, as arithmetic on a group's format."""

from functools import lru_cache

import torch

from laconic.formats._groups import ORIGIN_BYTES, GroupFormat
from laconic.formats._kinds import Kind
from laconic.formats.grids import Grid
from laconic.kernels.tables import Integers

FRAME_BYTES = 32
COUNT_BYTES = 4


def symbol_bits(symbols: int) -> tuple[int, int]:
    """How many symbols share a unit, and bits of the unit.

    ``(1, ceil(log2 symbols))``, or as many symbols to a byte as fit where that is less: ternary symbols
    travel five to a byte.
    """
    width = (symbols - 1).bit_length()
    shared = 1
    while symbols ** (shared + 1) <= 256:
        shared += 1
    return (shared, 8) if shared > 1 and shared * width > 8 else (1, width)


@lru_cache(maxsize=256)
def base_bytes(grid: Grid, dtype: torch.dtype) -> int:
    """Bytes of the number of the level under a segment's span; 0 where the grid's rows span all levels."""
    window = grid.window(dtype)
    if window is None:
        return 0
    return whole_bytes(max(1, (len(grid.levels(dtype)) - window).bit_length()))


def value_bytes(kind: Kind, k: int) -> int:
    """Bytes of k values: numbers, or codes."""
    if kind.grid is None:
        return k * kind.dtype.itemsize
    shared, bits = symbol_bits(kind.grid.symbols(kind.dtype))
    return whole_bytes(-(-k // shared) * bits)


def side_bytes(group: GroupFormat) -> int:
    """Bytes beside positions and values: counts, origin, scales, lowest magnitudes, bases of codes."""
    kind = group.kind
    size = group.scales * (kind.has_scale + kind.has_low) * kind.dtype.itemsize
    size += COUNT_BYTES * group.segments * kind.has_counts + ORIGIN_BYTES * kind.sends_seed
    return size if kind.grid is None else size + group.segments * base_bytes(kind.grid, kind.dtype)


def section_bytes(group: GroupFormat, used: Integers | None = None) -> int:
    """Bytes of a group's section.

    Where positions adapt to their density, the most that they can take.

    Args:
        group: its format.
        used: (S,) columns in use, where counts vary; None: all.
    """
    columns = group.columns if used is None else int(used.sum())
    size = side_bytes(group) + value_bytes(group.kind, columns)
    if group.kind.has_positions and not group.kind.sends_seed:
        plan = group.plan if used is None else group.plan_for(used)
        size += plan.nbytes + group.kind.adaptive
    return size


def largest_bytes(group: GroupFormat) -> int:
    """Bytes of a group's section that no message exceeds: its size, where that is fixed."""
    if not group.kind.has_counts:
        return section_bytes(group)
    # No form of a segment's positions has more bits than the bitmap, whatever the count.
    values = value_bytes(group.kind, group.columns)
    return side_bytes(group) + values + whole_bytes(group.d) + 1 + group.kind.adaptive


def whole_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return (bits + 7) // 8
