"""Bit packing of positions: those of all segments of a group as two streams of bits.

Each segment's positions take the form with the fewest bits; of equal ones the first of: implied (none or all
are used), cells, Elias-Fano, bitmap. The low stream is the segments' low bits one after another, the high
stream their high bits; each is filled with zeros to whole bytes once. docs/wire-format.md has the forms.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.group_packing import (
    RICE_BLOCK,
    RICE_WIDTH,
    Bytes,
    get_positions_plainly,
    put_positions_plainly,
)
from laconic.kernels.rice import get_rice, put_rice, rice_lows

Integers = npt.NDArray[np.int64]

IMPLIED, CELLS, ELIAS_FANO, BITMAP = range(4)
_LONGEST = 1 << 50
"""Low bits of a position are read from one unaligned word, and float64 holds such lengths exactly."""

_EIGHT = np.zeros(8, np.uint8)


class PositionPlan(NamedTuple):
    """Where each segment's positions lie in the streams.

    Args:
        numels: (S,) lengths of the segments.
        used: (S,) positions of each.
        bounds: (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``, of which the
            first ``used[s]`` are used.
        forms: (S,) ``IMPLIED``, ``CELLS``, ``ELIAS_FANO`` or ``BITMAP``.
        widths: (S,) low bits of a position.
        cell_lengths: (S,) coordinates of a cell; 0 where there are none.
        cell_counts: (S,) positions in a cell.
        lows: (S + 1,): the segment's low bits are those from ``lows[s]`` to ``lows[s + 1]`` of their stream.
        highs: (S + 1,), of the high stream.
    """

    numels: Integers
    used: Integers
    bounds: Integers
    forms: Integers
    widths: Integers
    cell_lengths: Integers
    cell_counts: Integers
    lows: Integers
    highs: Integers

    @property
    def columns(self) -> int:
        """Columns of all segments, used or not."""
        return int(self.bounds[-1])

    @property
    def total_used(self) -> int:
        """Positions of all segments."""
        return int(self.used.sum())

    @property
    def total_bits(self) -> int:
        """Bits of both streams, without those that fill bytes."""
        return int(self.lows[-1] + self.highs[-1])

    @property
    def low_bytes(self) -> int:
        """Bytes of the low stream, which stands first."""
        return (int(self.lows[-1]) + 7) // 8

    @property
    def nbytes(self) -> int:
        """Bytes of both streams."""
        return self.low_bytes + (int(self.highs[-1]) + 7) // 8


def position_plan(
    numels: Sequence[int] | Integers,
    used: Sequence[int] | Integers,
    cell_lengths: Sequence[int] | Integers | None = None,
    cell_counts: Sequence[int] | Integers | None = None,
    kept: Sequence[int] | Integers | None = None,
) -> PositionPlan:
    """The plan for ascending positions in [0, numel) of each segment.

    Args:
        numels: (S,), each >= 1.
        used: (S,) positions of each segment.
        cell_lengths: (S,) coordinates of a cell, 0 where a segment has none; None: none has.
        cell_counts: (S,) positions in a cell.
        kept: (S,) columns that each segment owns; None: ``used``.

    Raises:
        ValueError: where more positions are used than a segment has coordinates or columns.

    Example:
        >>> plan = position_plan([1000, 4, 8], [20, 4, 4])
        >>> plan.forms.tolist(), plan.widths.tolist(), plan.total_bits
        ([2, 0, 3], [5, 0, 0], 159)
    """
    d, n = np.asarray(numels, np.int64), np.asarray(used, np.int64)
    columns = n if kept is None else np.asarray(kept, np.int64)
    lengths, counts = (
        np.zeros_like(d) if given is None else np.asarray(given, np.int64)
        for given in (cell_lengths, cell_counts)
    )
    if bool(((n < 0) | (n > d) | (n > columns)).any()):
        raise ValueError("more positions are used than the segment has coordinates or columns")
    if int(np.maximum(d, lengths).max(initial=0)) > _LONGEST or bool((counts < (lengths > 0)).any()):
        raise ValueError(f"segments and cells have up to {_LONGEST} coordinates, and cells hold positions")
    lows = np.arange(int(d.max(initial=1) - 1).bit_length() + 1)[:, None]
    costs = n * lows + (d - 1 >> lows)
    width = costs.argmin(axis=0)
    fano = n + np.take_along_axis(costs, width[None], 0)[0]
    # The order of the rows is the order in which equal forms are preferred.
    in_cell = np.where(lengths > 0, _bit_length(lengths - 1), 0)
    none = np.iinfo(np.int64).max
    implied = np.where((n == 0) | (n == d), 0, none)
    forms = np.stack((implied, np.where(lengths > 0, n * in_cell, none), fano, d)).argmin(axis=0)
    widths = np.where(forms == CELLS, in_cell, np.where(forms == ELIAS_FANO, width, 0))
    high = np.where(forms == ELIAS_FANO, fano - n * width, np.where(forms == BITMAP, d, 0))
    return PositionPlan(d, n, _ends(columns), forms, widths, lengths, counts, _ends(n * widths), _ends(high))


def _bit_length(numbers: Integers) -> Integers:
    length: Integers = np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    return length


def _ends(sizes: Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def put_positions(positions: Tensor | Integers, plan: PositionPlan, out: Bytes) -> None:
    """Write the positions of all segments.

    Args:
        positions: int64 (plan.columns,), counted from the start of each segment. Those of a tensor on a
            device are packed there, so that only bytes cross to main memory.
        plan: of as many columns.
        out: uint8 (plan.nbytes,).

    Raises:
        ValueError: unless they ascend within [0, numel) of their segment, and keep to its cells.
    """
    if isinstance(positions, Tensor) and positions.device.type != "cpu":
        torch.from_numpy(out).copy_(put_positions_plainly(positions, plan))
        return
    columns = positions.numpy() if isinstance(positions, Tensor) else positions
    columns = np.ascontiguousarray(columns)
    if columns.shape != (plan.columns,) or out.shape != (plan.nbytes,):
        raise ValueError(
            f"{plan.columns} positions take {plan.nbytes} bytes, got {columns.shape} and {out.shape}"
        )
    dispatch(
        "group_positions",
        lambda loops: _written(loops.put(columns, plan, out)),
        lambda: torch.from_numpy(out).copy_(put_positions_plainly(torch.from_numpy(columns), plan)),
    )


def _written(fits: bool) -> None:
    if not fits:
        raise ValueError("the positions do not ascend within their segment, or do not keep to its cells")


def get_positions(data: Bytes, plan: PositionPlan, out: Integers | None = None) -> Integers:
    """The positions that :func:`put_positions` wrote.

    Args:
        data: uint8 (plan.nbytes,).
        plan: what the positions were written with.
        out: int64 (plan.columns,) to write to, or None.

    Returns:
        int64 (plan.columns,), ascending within each segment; places that are not used hold its numel.

    Raises:
        ValueError: for bytes that no positions make.
    """
    if data.shape != (plan.nbytes,):
        raise ValueError(f"the positions take {plan.nbytes} bytes, not {data.size}")
    cut = plan.low_bytes
    for stream, bits in ((data[:cut], int(plan.lows[-1])), (data[cut:], int(plan.highs[-1]))):
        if bits % 8 and stream[-1] >> bits % 8:
            raise ValueError("the bits that fill the last byte are not zero")
    positions = np.empty(plan.columns, np.int64) if out is None else out

    def compiled(loops: Any) -> None:
        # The loop reads words of eight bytes, from any byte on.
        if not loops.get(np.concatenate((data, _EIGHT)), plan, positions):
            raise ValueError("the positions do not ascend within their segment")

    dispatch("group_positions", compiled, lambda: _copy_plainly(data, plan, positions))
    return positions


def _copy_plainly(data: Bytes, plan: PositionPlan, positions: Integers) -> None:
    positions[:] = get_positions_plainly(torch.from_numpy(data.copy()), plan).numpy()


def put_adaptive(positions: Tensor | Integers, plan: PositionPlan) -> Bytes:
    """The gaps between the positions of the whole group in blocks that adapt to their density.

    Positions are counted through all segments here. The length of the high bits comes first, as a varint; a 0
    says that the form of :func:`put_positions` follows, which is taken where it is no longer.

    Raises:
        ValueError: as :func:`put_positions`.
    """
    columns = positions.cpu().numpy() if isinstance(positions, Tensor) else positions
    if plan.nbytes:
        pieces = list(put_rice(_flat(columns, plan), int(plan.numels.sum())))
        pieces.insert(0, np.frombuffer(_varint(pieces[-1].size), np.uint8))
        if sum(piece.size for piece in pieces) < 1 + plan.nbytes:
            return np.concatenate(pieces)
    packed = np.zeros(1 + plan.nbytes, np.uint8)
    put_positions(columns, plan, packed[1:])
    return packed


def get_adaptive(data: Bytes, plan: PositionPlan, out: Integers | None = None) -> tuple[Integers, int]:
    """What :func:`put_adaptive` wrote at the start of ``data``, and how many bytes it took.

    Raises:
        ValueError: where it did not, or the bytes end too soon.
    """
    high_bytes, at = _read_varint(data)
    if high_bytes == 0:
        end = at + plan.nbytes
        return get_positions(_cut(data, at, end), plan, out), end
    if not plan.nbytes:
        raise ValueError("positions are written that need no writing")
    k = plan.total_used
    params = at + (RICE_WIDTH * -(-k // RICE_BLOCK) + 7) // 8
    lows, low_bits = rice_lows(_cut(data, at, params), k)
    middle = params + (low_bits + 7) // 8
    low = _cut(data, params, middle)
    high = _cut(data, middle, middle + high_bytes)
    flat = get_rice(lows, low, high, int(plan.numels.sum()), k)
    return _split(flat, plan, out), middle + high_bytes


def _used_columns(plan: PositionPlan) -> tuple[Integers, Integers]:
    """The column and the segment of each position."""
    segment = np.repeat(np.arange(plan.used.size), plan.used)
    column = np.arange(segment.size) + (plan.bounds[:-1] - _ends(plan.used)[:-1])[segment]
    return column, segment


def _flat(columns: Integers, plan: PositionPlan) -> Integers:
    column, segment = _used_columns(plan)
    places = columns[column]
    if bool(((places < 0) | (places >= plan.numels[segment])).any()):
        _written(False)
    flat: Integers = places + _ends(plan.numels)[segment]
    return flat


def _split(flat: Integers, plan: PositionPlan, out: Integers | None) -> Integers:
    column, segment = _used_columns(plan)
    places = flat - _ends(plan.numels)[segment]
    if bool(((places < 0) | (places >= plan.numels[segment])).any()):
        raise ValueError("a position lies in another segment")
    positions = np.empty(plan.columns, np.int64) if out is None else out
    positions[:] = np.repeat(plan.numels, np.diff(plan.bounds))
    positions[column] = places
    return positions


def _cut(data: Bytes, start: int, end: int) -> Bytes:
    if end > data.size:
        raise ValueError(f"the positions take {end} bytes, but only {data.size} are left")
    return data[start:end]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _read_varint(data: Bytes) -> tuple[int, int]:
    number = 0
    for i, byte in enumerate(data[:9].tolist()):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i:
                break
            return number, i + 1
    raise ValueError("the length of the high bits is no varint in its shortest form")
