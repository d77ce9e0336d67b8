"""Positions as bytes: k ascending numbers in [0, d)."""

from typing import Any, overload

import numpy as np
from torch import Tensor

from laconic.kernels import coding, device_packing
from laconic.kernels.packing import RICE_BLOCK, RICE_WIDTH, Bytes, Numbers
from laconic.sizes import low_bits, position_form, whole_bytes
from laconic.specs import varint
from laconic.wire._cursor import Cursor


@overload
def put_positions(positions: Numbers, d: int, cells: tuple[int, int] | None) -> Bytes: ...
@overload
def put_positions(positions: Tensor, d: int, cells: tuple[int, int] | None) -> Tensor: ...
def put_positions(positions: Numbers | Tensor, d: int, cells: tuple[int, int] | None) -> Bytes | Tensor:
    """The positions in their smallest form of fixed size; those of a tensor on its device.

    Raises:
        ValueError: unless they ascend within [0, d), and keep to their cells.
    """
    packer: Any = device_packing if isinstance(positions, Tensor) else coding
    form, _ = position_form(d, len(positions), cells)
    packed: Bytes | Tensor
    if form == "implied":
        packer.check_ascending(positions, d)
        packed = packer.put_bits(positions[:0], 0)
    elif form == "bitmap":
        packed = packer.put_bitmap(positions, d)
    elif form == "cells":
        assert cells is not None
        packed = packer.put_cells(positions, d, *cells)
    else:
        packed = packer.put_elias_fano(positions, d, low_bits(d, len(positions)))
    return packed


def get_positions(data: Bytes, d: int, k: int, cells: tuple[int, int] | None) -> Numbers:
    """The positions that stand in so many bytes as :func:`laconic.sizes.position_form` says.

    Raises:
        ValueError: unless they ascend within [0, d), keep to their cells and are followed by zeros.
    """
    form, _ = position_form(d, k, cells)
    if form == "implied":
        return np.arange(k, dtype=np.int64)
    if form == "bitmap":
        return coding.get_bitmap(data, d, k)
    if form == "cells":
        assert cells is not None
        return coding.get_cells(data, d, k, *cells)
    return coding.get_elias_fano(data, d, k, low_bits(d, k))


def put_adaptive(positions: Numbers, d: int, cells: tuple[int, int] | None) -> list[Bytes]:
    """The positions in blocks that each have their own parameter; or a 0 and the form of fixed size."""
    form, size = position_form(d, positions.size, cells)
    if form != "implied":
        pieces = list(coding.put_rice(positions, d))
        pieces.insert(0, np.frombuffer(varint(pieces[-1].size), np.uint8))
        if sum(piece.size for piece in pieces) < 1 + size:
            return pieces
    return [np.zeros(1, np.uint8), put_positions(positions, d, cells)]


def get_adaptive(cursor: Cursor, d: int, k: int, cells: tuple[int, int] | None, name: str) -> Numbers:
    """What :func:`put_adaptive` wrote, at the cursor; ValueError where it did not."""
    high_bytes = cursor.varint(f"the length of {name}'s positions")
    form, size = position_form(d, k, cells)
    if high_bytes == 0:
        return get_positions(cursor.take(size, f"the positions of {name}"), d, k, cells)
    params = cursor.take(whole_bytes(RICE_WIDTH * -(-k // RICE_BLOCK)), f"the parameters of {name}")
    if form == "implied":
        raise ValueError("positions are written that need no writing")
    lows, low_total = coding.rice_lows(params, k)
    low = cursor.take(whole_bytes(low_total), f"the low bits of {name}")
    return coding.get_rice(lows, low, cursor.take(high_bytes, f"the high bits of {name}"), d, k)
