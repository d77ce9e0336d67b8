"""Values as bytes: numbers as they are, codes as symbols of their true width.

A code c becomes a symbol: with 0 among the codes, 0 -> 0, m -> 2m - 1, -m -> 2m; without, m -> 2m - 2,
-m -> 2m - 1. Where a grid's rows span a window of levels, m counts from the base, the number of the level
under the row's span.
"""

import numpy as np
import torch
from torch import Tensor

from laconic.grids import Grid
from laconic.kernels.packing import Bytes, Numbers, get_bits, get_groups, put_bits, put_groups
from laconic.sizes import base_bytes, symbol_bits
from laconic.specs import Kind
from laconic.wire._errors import WireError


def put_numbers(numbers: Tensor) -> Bytes:
    """The numbers' own bytes, lowest first."""
    return numbers.detach().cpu().contiguous().view(torch.uint8).numpy()


def get_numbers(data: Bytes, dtype: torch.dtype) -> Tensor:
    """Numbers from their own bytes."""
    return torch.from_numpy(data.copy()).view(dtype)


def put_codes(codes: Numbers, kind: Kind) -> tuple[bytes, Bytes]:
    """The base of the codes and the codes themselves.

    Raises:
        ValueError: where a code is none of the grid's, or the row spans more levels than it may.
    """
    grid = kind.grid
    assert grid is not None
    magnitude = np.abs(codes)
    window = grid.window(kind.dtype)
    largest = int(magnitude.max(initial=0))
    base = 0 if window is None else max(0, largest - window)
    symbols = grid.symbols(kind.dtype)
    magnitude = np.where(codes == 0, 0, magnitude - base)
    if largest > len(grid.levels(kind.dtype)) or bool(np.any((codes != 0) & (magnitude < 1))):
        raise ValueError(f"the codes are none of {grid}")
    if symbols % 2:
        numbers = np.where(codes > 0, 2 * magnitude - 1, 2 * magnitude)
    else:
        numbers = 2 * magnitude - np.where(codes > 0, 2, 1)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= symbols:
        raise ValueError(f"the codes are none of {grid}")
    shared, width = symbol_bits(symbols)
    packed = put_bits(numbers, width) if shared == 1 else put_groups(numbers, symbols, shared)
    return base.to_bytes(base_bytes(grid, kind.dtype), "little"), packed


def get_codes(data: Bytes, base: int, kind: Kind, k: int) -> Numbers:
    """k codes.

    Raises:
        WireError: where a symbol is none of the grid's or the bits that fill the last byte are not zero.
    """
    grid = kind.grid
    assert grid is not None
    check_base(grid, base, kind.dtype)
    symbols = grid.symbols(kind.dtype)
    shared, width = symbol_bits(symbols)
    if shared == 1:
        numbers = get_bits(data, width, k)
        spare = bool(k * width % 8 and data[-1] >> k * width % 8)
    else:
        numbers = get_groups(data, symbols, shared, k)
        spare = int(data.max(initial=0)) >= symbols**shared or bool(
            k % shared and data[-1] >= symbols ** (k % shared)
        )
    if spare or numbers.max(initial=0) >= symbols:
        raise WireError(f"the codes are none of the {symbols} symbols of {grid}")
    if symbols % 2:
        magnitude = (numbers + 1) >> 1
        magnitude[numbers > 0] += base
        return np.where(numbers % 2 == 1, magnitude, -magnitude)
    magnitude = (numbers >> 1) + 1
    return np.where(numbers % 2 == 0, magnitude, -magnitude)


def check_base(grid: Grid, base: int, dtype: torch.dtype) -> None:
    """Refuse a base from which a row's span leaves the grid."""
    window = grid.window(dtype)
    if window is not None and base > max(0, len(grid.levels(dtype)) - window):
        raise WireError(f"the codes start at level {base}, but {grid} has {len(grid.levels(dtype))}")


def filling(grid: Grid | None, dtype: torch.dtype) -> int:
    """What stands in places that are not used: the code, or the number, of 0."""
    return 0 if grid is None or grid.symbols(dtype) % 2 else 1
