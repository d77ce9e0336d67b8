"""Values as bytes: numbers as they are, codes as symbols of their true width."""

import torch
from torch import Tensor

from laconic.grids import Grid
from laconic.kernels import coding, device_packing
from laconic.kernels._narrow import CODE_DTYPES
from laconic.kernels.packing import Bytes
from laconic.sizes import base_bytes, symbol_bits
from laconic.specs import Kind


def put_numbers(numbers: Tensor) -> Bytes | Tensor:
    """The numbers' own bytes, lowest first; those of a device on it."""
    row = numbers.detach().contiguous()
    # A tensor of one element or none counts as contiguous whatever its stride, but is not seen as bytes.
    row = row if row.stride(-1) == 1 else row.clone(memory_format=torch.contiguous_format)
    packed = row.view(torch.uint8)
    return packed if packed_in_place(packed) else packed.numpy()


def packed_in_place(tensor: Tensor) -> bool:
    """Whether a tensor's bits are joined on its device, so that only bytes cross to main memory."""
    return tensor.device.type != "cpu"


def get_numbers(data: Bytes, dtype: torch.dtype) -> Tensor:
    """Numbers from their own bytes."""
    if not data.size:  # whose strides torch cannot view as another dtype
        return torch.empty(0, dtype=dtype)
    return torch.from_numpy(data.copy()).view(dtype)


def put_codes(codes: Tensor, kind: Kind) -> tuple[bytes, Bytes | Tensor]:
    """The base of the codes and the codes themselves; those that are not in main memory on their device.

    Raises:
        ValueError: where a code is none of the grid's, or the row spans more levels than it may.
    """
    grid = kind.grid
    assert grid is not None
    codes = _of_known_width(codes.detach()).contiguous()
    base = 0
    if (window := grid.window(kind.dtype)) is not None and codes.numel():
        low, high = torch.aminmax(codes)
        largest = max(-int(low), int(high))
        if largest > level_count(grid, kind.dtype):
            raise ValueError(f"the codes are none of {grid}")
        base = max(0, largest - window)
    symbols = grid.symbols(kind.dtype)
    packed: Bytes | Tensor
    if packed_in_place(codes):
        packed = device_packing.put_codes(codes, base, symbols, *symbol_bits(symbols))
    else:
        packed = coding.put_codes(codes.numpy(), base, symbols, *symbol_bits(symbols))
    return base.to_bytes(base_bytes(grid, kind.dtype), "little"), packed


def _of_known_width(codes: Tensor) -> Tensor:
    if codes.dtype in CODE_DTYPES:
        return codes
    # A code that int32 cannot hold is no grid's: it is to be refused, not to come round as another.
    most = torch.iinfo(torch.int32).max
    return codes.to(torch.int64).clamp(-most, most).to(torch.int32)


def get_codes(data: Bytes, base: int, kind: Kind, k: int) -> Tensor:
    """k codes: (k,) in the narrowest of int8, int16 and int32 that holds the number of the grid's levels.

    Raises:
        ValueError: where a symbol is none of the grid's or the bits that fill the last byte are not zero.
    """
    grid = kind.grid
    assert grid is not None
    window, top = grid.window(kind.dtype), level_count(grid, kind.dtype)
    if window is not None and base > max(0, top - window):
        raise ValueError(f"the codes start above level {base}, but {grid} spans {window} to its end")
    symbols = grid.symbols(kind.dtype)
    return torch.from_numpy(coding.get_codes(data, base, symbols, *symbol_bits(symbols), k, top))


def level_count(grid: Grid, dtype: torch.dtype) -> int:
    """Number of the grid's levels."""
    # Where every level may stand beside every other, symbols tell; a table could be longer than the message.
    return grid.symbols(dtype) // 2 if grid.window(dtype) is None else len(grid.levels(dtype))


def filling(grid: Grid | None, dtype: torch.dtype) -> int:
    """What stands in places that are not used: the code, or the number, of 0."""
    return 0 if grid is None or grid.symbols(dtype) % 2 else 1
