"""Positions and codes as bits in PyTorch, on whatever device they are: what ``packing`` says, bit for bit.

A message of a GPU's tensors is packed there, so that only its bytes cross to main memory.
"""

from typing import cast

import torch
from torch import Tensor

from laconic.kernels._choice import on_gpu

_CHUNK = 1 << 20
"""Numbers whose bits are spread out at a time; a multiple of 8, so that chunks end with whole bytes."""


def _join(bits: Tensor) -> Tensor:
    """Bits, lowest first, as bytes: uint8 (n,) to uint8 (ceil(n / 8),)."""
    padded = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, device=bits.device)
    return (padded * weights).sum(dim=-1).to(torch.uint8)


def put_bits(numbers: Tensor, width: int) -> Tensor:
    """Numbers in [0, 2^width) one after another.

    Args:
        numbers: int64 (n,).
        width: bits of a number.

    Returns:
        uint8 (ceil(n width / 8),) on the same device.

    Example:
        >>> put_bits(torch.tensor([1, 2, 3]), 3)
        tensor([209,   0], dtype=torch.uint8)
    """
    if width == 0 or numbers.numel() == 0:
        return numbers.new_empty(0, dtype=torch.uint8)
    places = torch.arange(width, device=numbers.device)
    chunks = [_join(((chunk[:, None] >> places) & 1).to(torch.uint8).flatten()) for chunk in _chunks(numbers)]
    return torch.cat(chunks)


def _chunks(numbers: Tensor) -> list[Tensor]:
    return [numbers[start : start + _CHUNK] for start in range(0, numbers.numel(), _CHUNK)]


def _put_ones(places: Tensor, length: int) -> Tensor:
    bits = torch.zeros(length, dtype=torch.uint8, device=places.device)
    bits[places] = 1
    return _join(bits)


def check_ascending(positions: Tensor, d: int) -> None:
    """Refuse positions that do not ascend within [0, d)."""
    if positions.numel() == 0:
        return
    good = (positions[0] >= 0) & (positions[-1] < d) & (positions[1:] > positions[:-1]).all()
    if not bool(good):
        raise ValueError(f"the positions do not ascend within [0, {d})")


def put_bitmap(positions: Tensor, d: int) -> Tensor:
    """One bit for each coordinate."""
    check_ascending(positions, d)
    return _put_ones(positions, d)


def put_elias_fano(positions: Tensor, d: int, low: int) -> Tensor:
    """The low bits of each position, then a one at ``(position >> low) + number`` for each."""
    check_ascending(positions, d)
    k = positions.numel()
    high = (positions >> low) + torch.arange(k, device=positions.device)
    return torch.cat((put_bits(positions & ((1 << low) - 1), low), _put_ones(high, k + ((d - 1) >> low))))


def put_cells(positions: Tensor, d: int, length: int, count: int) -> Tensor:
    """Each position within its cell, where every cell of ``length`` coordinates holds ``count``."""
    check_ascending(positions, d)
    cell = torch.arange(positions.numel(), device=positions.device) // count
    places = positions - cell * length
    if bool(((places < 0) | (places >= length)).any()):
        raise ValueError(f"the positions do not lie {count} in each {length}")
    return put_bits(places, (length - 1).bit_length())


def put_codes(codes: Tensor, base: int, symbols: int, shared: int, width: int) -> Tensor:
    """Codes, of a signed integer dtype (k,), as symbols, ``shared`` to a group of ``width`` bits."""
    numbers = _symbols(codes, base, symbols)
    if (gpu := on_gpu(codes)) is not None:
        return cast(Tensor, gpu.pack_codes(codes, base, symbols, shared, width))
    if shared > 1:
        digits = torch.nn.functional.pad(numbers, (0, -numbers.numel() % shared)).view(-1, shared)
        numbers = (digits * symbols ** torch.arange(shared, device=codes.device)).sum(dim=-1)
    return put_bits(numbers, width)


def _symbols(codes: Tensor, base: int, symbols: int) -> Tensor:
    wide = codes.to(torch.int64)
    magnitude = wide.abs() - base
    if symbols % 2:
        numbers = torch.where(wide == 0, 0, 2 * magnitude - (wide > 0).to(torch.int64))
        good = (wide == 0) | (magnitude > 0)
    else:
        numbers = 2 * magnitude - 1 - (wide > 0).to(torch.int64)
        good = torch.ones_like(wide, dtype=torch.bool)
    if not bool((good & (numbers >= 0) & (numbers < symbols)).all()):
        raise ValueError(f"the codes are none of {symbols} symbols")
    return numbers
