"""Bit packing of the positions of all segments of a group, as a plan says or by the density of blocks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.position_plan import PositionPlan
from laconic.kernels.reference.group_positions import get_positions_reference, put_positions_reference
from laconic.kernels.reference.rice import RICE_BLOCK, RICE_WIDTH
from laconic.kernels.rice import get_rice, put_rice, rice_lows
from laconic.kernels.tables import Bytes, Integers, bounds_of, columns_used

_EIGHT = np.zeros(8, np.uint8)


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
        torch.from_numpy(out).copy_(put_positions_reference(positions, plan))
        return
    columns = positions.numpy() if isinstance(positions, Tensor) else positions
    columns = np.ascontiguousarray(columns)
    if columns.shape != (plan.columns,) or out.shape != (plan.nbytes,):
        raise ValueError(
            f"{plan.columns} positions take {plan.nbytes} bytes, got {columns.shape} and {out.shape}"
        )
    dispatch(
        "group_positions",
        lambda cpu: _written(cpu.put(columns, plan, out)),
        lambda: torch.from_numpy(out).copy_(put_positions_reference(torch.from_numpy(columns), plan)),
    )


def _written(fits: bool) -> None:
    if not fits:
        raise ValueError("the positions do not ascend within their segment, or do not keep to its cells")


def get_positions(data: Bytes, plan: PositionPlan) -> Integers:
    """The positions that :func:`put_positions` wrote.

    Args:
        data: uint8 (plan.nbytes,).
        plan: what the positions were written with.

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

    def compiled(cpu: Any) -> Integers:
        positions = np.empty(plan.columns, np.int64)
        # The loop reads words of eight bytes, from any byte on.
        if not cpu.get(np.concatenate((data, _EIGHT)), plan, positions):
            raise ValueError("the positions do not ascend within their segment")
        return positions

    def reference() -> Integers:
        return get_positions_reference(torch.from_numpy(data.copy()), plan).numpy()

    return dispatch("group_positions", compiled, reference)


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


def get_adaptive(data: Bytes, plan: PositionPlan) -> tuple[Integers, int]:
    """What :func:`put_adaptive` wrote at the start of ``data``, and how many bytes it took.

    Raises:
        ValueError: where it did not, or the bytes end too soon.
    """
    high_bytes, at = _read_varint(data)
    if high_bytes == 0:
        end = at + plan.nbytes
        return get_positions(_cut(data, at, end), plan), end
    if not plan.nbytes:
        raise ValueError("positions are written that need no writing")
    k = plan.total_used
    params = at + (RICE_WIDTH * -(-k // RICE_BLOCK) + 7) // 8
    lows, low_bits = rice_lows(_cut(data, at, params), k)
    middle = params + (low_bits + 7) // 8
    low = _cut(data, params, middle)
    high = _cut(data, middle, middle + high_bytes)
    flat = get_rice(lows, low, high, int(plan.numels.sum()), k)
    return _split(flat, plan), middle + high_bytes


def _flat(columns: Integers, plan: PositionPlan) -> Integers:
    segment, _, column = (each.numpy() for each in columns_used(plan.bounds, plan.used))
    places = columns[column]
    if bool(((places < 0) | (places >= plan.numels[segment])).any()):
        _written(False)
    flat: Integers = places + bounds_of(plan.numels)[segment]
    return flat


def _split(flat: Integers, plan: PositionPlan) -> Integers:
    segment, _, column = (each.numpy() for each in columns_used(plan.bounds, plan.used))
    places = flat - bounds_of(plan.numels)[segment]
    if bool(((places < 0) | (places >= plan.numels[segment])).any()):
        raise ValueError("a position lies in another segment")
    positions = np.repeat(plan.numels, np.diff(plan.bounds))
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
