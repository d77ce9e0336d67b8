"""Values as bytes: numbers as they are, codes as symbols of their true width."""

import numpy as np
import torch
from torch import Tensor

from laconic._host import to_host
from laconic.formats import GroupFormat
from laconic.formats._cursor import Bytes, WireError
from laconic.formats.grids import Grid
from laconic.formats.sizes import base_bytes, symbol_bits
from laconic.kernels import group_codes
from laconic.kernels._code_dtypes import CODE_DTYPES
from laconic.kernels.tables import Integers

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of as many bytes as a number: NumPy has no bfloat16."""

_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
"""The bits of infinity; those of NaN are larger, of finite magnitudes smaller."""

_CHUNK = 1 << 16
"""Numbers that are looked at together: few enough to stay in cache."""


def put_numbers(numbers: Tensor, dtype: torch.dtype, out: Bytes) -> None:
    """The numbers' own bytes, lowest first.

    Raises:
        ValueError: where they are of another dtype or take another number of bytes.
    """
    if numbers.dtype != dtype or numbers.shape != (out.size // dtype.itemsize,):
        count = out.size // dtype.itemsize
        raise ValueError(
            f"the format says {count} numbers of {dtype}, got {numbers.dtype} {tuple(numbers.shape)}"
        )
    host = to_host(numbers.detach()).view(_INTEGERS[dtype.itemsize])
    out[:] = np.ascontiguousarray(host.numpy()).view(np.uint8)


def get_numbers(data: Bytes, dtype: torch.dtype, what: str) -> Tensor:
    """Numbers from their own bytes.

    Raises:
        WireError: where one is NaN or infinite.
    """
    numbers = torch.empty(data.size // dtype.itemsize, dtype=dtype, device="cpu")
    numbers.view(torch.uint8).numpy()[:] = data
    if not _finite(numbers):
        raise WireError(f"{what} are not finite: the sender's numbers hold NaN or infinity")
    return numbers


def _finite(numbers: Tensor) -> bool:
    chunks = range(0, numbers.numel(), _CHUNK)
    if (infinity := _INFINITY.get(numbers.dtype)) is not None:
        bits = numbers.view(torch.int16).numpy()
        return all(bool((bits[i : i + _CHUNK] & 0x7FFF).max() < infinity) for i in chunks)
    row = numbers.numpy()
    return all(bool(np.isfinite(row[i : i + _CHUNK]).all()) for i in chunks)


def put_codes(
    codes: Tensor, one: GroupFormat, used: Integers | None, bases_out: Bytes, codes_out: Bytes
) -> None:
    """The bases of a group's codes, and the codes; those on a device are packed there.

    Args:
        codes: integers (K,).
        one: the group's format.
        used: (S,) columns in use; None: all.
        bases_out: where the bases go.
        codes_out: where the codes go.

    Raises:
        ValueError: where a code is none of the grid's, or those of a segment span more levels than they may.
    """
    grid, dtype = _grid(one), one.kind.dtype
    if codes.shape != (one.columns,):
        raise ValueError(f"the format says {one.columns} codes, got shape {tuple(codes.shape)}")
    codes, bounds = _of_known_width(codes.detach()), one.table.bounds
    bases = None
    if (window := grid.window(dtype)) is not None:
        if used is not None:
            codes = group_codes.compact(codes, bounds, used)
            bounds, used = np.concatenate((np.zeros(1, np.int64), np.cumsum(used))), None
        largest = _largest_levels(codes, bounds)
        if largest.max(initial=0) > level_count(grid, dtype):
            raise ValueError(f"the codes are none of {grid}")
        bases = np.maximum(largest - window, 0)
        bytes_ = bases.astype("<i8").view(np.uint8).reshape(-1, 8)[:, : base_bytes(grid, dtype)]
        bases_out[:] = bytes_.reshape(-1)
    symbols = grid.symbols(dtype)
    group_codes.put_codes(codes, bases, bounds, used, symbols, *symbol_bits(symbols), codes_out)


def _largest_levels(codes: Tensor, bounds: Integers) -> Integers:
    """The largest level of each segment's codes: int64 (S,), 0 where it has none."""
    if codes.device.type != "cpu":
        return _largest_levels_on_device(codes, bounds)
    kept = np.diff(bounds)
    largest = np.zeros(kept.size, np.int64)
    filled = np.flatnonzero(kept)
    if not filled.size:
        return largest
    starts, row = bounds[:-1][filled], np.ascontiguousarray(codes.numpy())
    low, high = np.minimum.reduceat(row, starts), np.maximum.reduceat(row, starts)
    # The lowest number of a width has no counterpart above 0, hence the wider one first.
    largest[filled] = np.maximum(-low.astype(np.int64), high.astype(np.int64))
    return largest


def _largest_levels_on_device(codes: Tensor, bounds: Integers) -> Integers:
    kept = np.diff(bounds)
    owner = torch.from_numpy(np.repeat(np.arange(kept.size), kept)).to(codes.device)
    found = torch.zeros(kept.size, dtype=torch.int64, device=codes.device)
    found.scatter_reduce_(0, owner, codes.to(torch.int64).abs(), "amax")
    return np.asarray(found.cpu().numpy(), np.int64)


def _of_known_width(codes: Tensor) -> Tensor:
    if codes.dtype in CODE_DTYPES:
        return codes
    # A code that int32 cannot hold is no grid's: it is to be refused, not to come round as another.
    most = torch.iinfo(torch.int32).max
    return codes.to(torch.int64).clamp(-most, most).to(torch.int32)


def get_codes(bases_data: Bytes, data: Bytes, one: GroupFormat, used: Integers | None) -> Tensor:
    """The codes of a group: (K,) in the narrowest of int8, int16 and int32 that holds the grid's levels.

    Raises:
        ValueError: where a symbol or base is none of the grid's, or the bits that fill the last byte are not
            zero.
    """
    grid, dtype = _grid(one), one.kind.dtype
    window, top = grid.window(dtype), level_count(grid, dtype)
    bases = None
    if window is not None:
        wide = np.zeros((one.segments, 8), np.uint8)
        wide[:, : base_bytes(grid, dtype)] = bases_data.reshape(one.segments, -1)
        bases = wide.reshape(-1).view("<i8").astype(np.int64)
        if bases.max(initial=0) > max(0, top - window):
            raise ValueError(f"codes start above level {bases.max()}, but {grid} spans {window} to its end")
    symbols = grid.symbols(dtype)
    return group_codes.get_codes(data, bases, one.table.bounds, used, symbols, *symbol_bits(symbols), top)


def _grid(one: GroupFormat) -> Grid:
    grid = one.kind.grid
    assert grid is not None
    return grid


def level_count(grid: Grid, dtype: torch.dtype) -> int:
    """Number of the grid's levels."""
    # Where every level may stand beside every other, symbols tell; a table could be longer than the message.
    return grid.symbols(dtype) // 2 if grid.window(dtype) is None else len(grid.levels(dtype))
