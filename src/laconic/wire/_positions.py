"""Positions as bytes: k ascending numbers in [0, d)."""

import numpy as np

from laconic.kernels.packing import Bytes, Numbers, get_bits, get_ones, put_bits, put_ones
from laconic.sizes import cell_width, elias_fano_bytes, low_bits, position_form
from laconic.wire._errors import WireError


def put_positions(positions: Numbers, d: int, cells: tuple[int, int] | None) -> Bytes:
    """The positions in their smallest form.

    Raises:
        ValueError: unless they ascend within [0, d), and keep to their cells.
    """
    k = positions.size
    if k and not (positions[0] >= 0 and positions[-1] < d and bool(np.all(np.diff(positions) > 0))):
        raise ValueError(f"the positions of a message must ascend within [0, {d})")
    form, _ = position_form(d, k, cells)
    if form == "implied":
        return np.zeros(0, np.uint8)
    if form == "bitmap":
        return put_ones(positions, d)
    if form == "cells":
        assert cells is not None
        places = positions - np.arange(k) // cells[1] * cells[0]
        if places.min() < 0 or places.max() >= cells[0]:
            raise ValueError(f"the positions do not lie {cells[1]} in each {cells[0]}")
        return put_bits(places, cell_width(cells))
    low = low_bits(d, k)
    high = put_ones((positions >> low) + np.arange(k), k + ((d - 1) >> low))
    return np.concatenate((put_bits(positions & ((1 << low) - 1), low), high))


def get_positions(data: Bytes, d: int, k: int, cells: tuple[int, int] | None) -> Numbers:
    """The positions that stand in so many bytes as :func:`laconic.sizes.position_form` says.

    Raises:
        WireError: unless they ascend within [0, d), keep to their cells and are followed by zeros.
    """
    form, _ = position_form(d, k, cells)
    if form == "implied":
        return np.arange(k, dtype=np.int64)
    if form == "bitmap":
        positions = _ones(data, k, d)
    elif form == "cells":
        assert cells is not None
        width = cell_width(cells)
        _require_zeros(data, k * width)
        places = get_bits(data, width, k)
        if places.max(initial=0) >= cells[0]:
            raise WireError(f"a position lies outside its cell of {cells[0]} coordinates")
        positions = places + np.arange(k) // cells[1] * cells[0]
    else:
        low = low_bits(d, k)
        cut = elias_fano_bytes(d, k)[0]
        _require_zeros(data[:cut], k * low)
        high = _ones(data[cut:], k, k + ((d - 1) >> low))
        positions = ((high - np.arange(k)) << low) | get_bits(data[:cut], low, k)
    if positions[-1] >= d or bool(np.any(np.diff(positions) <= 0)):
        raise WireError(f"the positions do not ascend within [0, {d})")
    return positions


def _ones(data: Bytes, k: int, length: int) -> Numbers:
    places = get_ones(data)
    if places.size != k or places[-1] >= length:
        raise WireError(f"{places.size} of {length} bits mark positions, but {k} should")
    return places


def _require_zeros(data: Bytes, used: int) -> None:
    if used % 8 and data[used // 8] >> used % 8:
        raise WireError("the bits that fill the last byte of a section are not zero")
