"""Bit packing of the codes of a group, on any device."""

import torch
from torch import Tensor

from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.reference.bits import bits_of, joined
from laconic.kernels.tables import Integers, columns_used


def put_codes_reference(
    codes: Tensor, bases: Integers, bounds: Integers, used: Integers, symbols: int, shared: int, width: int
) -> Tensor:
    """The bytes of :func:`laconic.kernels.group_codes.put_codes`.

    An odd number of symbols has 0 among the codes: 0 -> 0, m -> 2(m - base) - 1, -m -> 2(m - base). An even
    one has not: m -> 2m - 2, -m -> 2m - 1. Symbols that share a group are digits, the first one lowest.
    """
    segment, _, column = columns_used(bounds, used, codes.device)
    code = codes[column].to(torch.int64)
    magnitude = code.abs() - torch.from_numpy(bases).to(codes.device)[segment]
    up = (code > 0).to(torch.int64)
    if symbols % 2:
        numbers = torch.where(code == 0, 0, 2 * magnitude - up)
        good = (code == 0) | (magnitude > 0)
    else:
        numbers = 2 * magnitude - 1 - up
        good = torch.ones_like(code, dtype=torch.bool)
    if not bool((good & (numbers >= 0) & (numbers < symbols)).all()):
        raise ValueError(f"the codes are none of {symbols} symbols")
    if shared > 1:
        digits = torch.nn.functional.pad(numbers, (0, -numbers.numel() % shared)).view(-1, shared)
        numbers = (digits * symbols ** torch.arange(shared, device=codes.device)).sum(dim=-1)
    bits = numbers[:, None] >> torch.arange(width, device=codes.device) & 1
    return joined(bits.to(torch.uint8).flatten())


def get_codes_reference(
    data: Tensor,
    bases: Integers,
    bounds: Integers,
    used: Integers,
    symbols: int,
    shared: int,
    width: int,
    top: int,
) -> Tensor:
    """The codes of :func:`laconic.kernels.group_codes.get_codes`."""
    segment, _, column = columns_used(bounds, used, data.device)
    k = len(column)
    bits = bits_of(data, -(-k // shared) * width).view(-1, width).to(torch.int64)
    numbers = (bits << torch.arange(width, device=data.device)).sum(dim=-1)
    if shared > 1:
        digits = numbers[:, None] // symbols ** torch.arange(shared, device=data.device) % symbols
        digits = digits.flatten()
        if bool((numbers >= symbols**shared).any()) or bool(digits[k:].any()):
            raise ValueError(f"the codes are none of {symbols} symbols")
        numbers = digits[:k]
    if bool((numbers >= symbols).any()):
        raise ValueError(f"the codes are none of {symbols} symbols")
    base = torch.from_numpy(bases).to(data.device)[segment]
    if symbols % 2:
        magnitude = torch.where(numbers == 0, 0, (numbers + 1) // 2 + base)
        up = numbers % 2 == 1
    else:
        magnitude, up = numbers // 2 + 1, numbers % 2 == 0
    codes = torch.full((int(bounds[-1]),), 1 - symbols % 2, dtype=code_dtype(top), device=data.device)
    codes[column] = torch.where(up, magnitude, -magnitude).to(codes.dtype)
    return codes
