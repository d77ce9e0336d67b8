"""Bit packing of positions and codes: the reference for the loops, on any device (Rice coding on the CPU).

Bits are numbered from the lowest of the first byte, and a number of ``width`` bits has its lowest bit first.
What does not fill its last byte is followed by zeros. Functions that read are given exactly as many bytes as
were written, and raise ValueError for bytes that those that write cannot have made.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._narrow import code_dtype

if TYPE_CHECKING:
    from laconic.kernels.group_positions import PositionPlan

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

RICE_BLOCK = 64
"""Gaps that share a number of low bits."""
RICE_WIDTH = 5
"""Bits of a number of low bits."""

_CELLS, _ELIAS_FANO, _BITMAP = 1, 2, 3


def columns_used(bounds: Integers, used: Integers, device: Any = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Of every used column in order: its segment, its number there, and the column itself."""
    counts, starts = torch.from_numpy(used).to(device), torch.from_numpy(bounds[:-1]).to(device)
    segment = torch.arange(len(used), device=device).repeat_interleave(counts)
    number = torch.arange(len(segment), device=device) - (counts.cumsum(0) - counts)[segment]
    return segment, number, starts[segment] + number


def put_positions_plainly(positions: Tensor, plan: "PositionPlan") -> Tensor:
    """The bytes of :func:`laconic.kernels.group_positions.put_positions`: uint8 (plan.nbytes,)."""
    device = positions.device
    d, width, form, length, count, low, high = _fields(plan, device)
    s, i, column = columns_used(plan.bounds, plan.used, device)
    p = positions[column]
    _check_ascending(p, d[s], i)
    cells = form[s] == _CELLS
    within = p - torch.where(cells, length[s] * (i // count[s].clamp(min=1)), 0)
    if bool((cells & ((within < 0) | (within >= length[s]))).any()):
        raise ValueError("the positions do not keep to the cells of their segment")
    bits = torch.zeros(int(plan.lows[-1]), dtype=torch.uint8, device=device)
    for bit in range(int(plan.widths.max(initial=0))):
        own = bit < width[s]
        bits[(low[s] + i * width[s] + bit)[own]] = (within >> bit & 1)[own].to(torch.uint8)
    marks = torch.zeros(int(plan.highs[-1]), dtype=torch.uint8, device=device)
    fano, bitmap = form[s] == _ELIAS_FANO, form[s] == _BITMAP
    marks[(high[s] + (p >> width[s]) + i)[fano]] = 1
    marks[(high[s] + p)[bitmap]] = 1
    return torch.cat((_join(bits), _join(marks)))


def get_positions_plainly(data: Tensor, plan: "PositionPlan") -> Tensor:
    """The positions that stand in the bytes: int64 (plan.columns,); places that are not used hold numel."""
    d, width, form, length, count, low, high = _fields(plan, data.device)
    s, i, column = columns_used(plan.bounds, plan.used, data.device)
    bits = _bits(data[: plan.low_bytes], int(plan.lows[-1]))
    marks = _bits(data[plan.low_bytes :], int(plan.highs[-1]))
    p = i.clone()
    cells, marked = form[s] == _CELLS, form[s] >= _ELIAS_FANO
    p[width[s] > 0] = 0
    for bit in range(int(plan.widths.max(initial=0))):
        own = bit < width[s]
        p[own] += bits[(low[s] + i * width[s] + bit)[own]].to(torch.int64) << bit
    if bool((cells & (p >= length[s])).any()):
        raise ValueError("a position lies outside its cell")
    p = p + torch.where(cells, length[s] * (i // count[s].clamp(min=1)), 0)
    ones = marks.nonzero().flatten()
    own, start, end = s[marked], high[:-1], high[1:]
    if len(ones) != len(own) or bool(((ones < start[own]) | (ones >= end[own])).any()):
        raise ValueError("the high bits have more or fewer ones than their segment has positions")
    places = ones - start[own]
    fano = form[own] == _ELIAS_FANO
    low_part = torch.where(width[own] > 0, p[marked], 0)
    p[marked] = torch.where(fano, (places - i[marked] << width[own]) + low_part, places)
    _check_ascending(p, d[s], i)
    kept = torch.from_numpy(np.diff(plan.bounds)).to(data.device)
    positions = d.repeat_interleave(kept)
    positions[column] = p
    return positions


def _fields(plan: "PositionPlan", device: torch.device) -> tuple[Tensor, ...]:
    arrays = (
        plan.numels,
        plan.widths,
        plan.forms,
        plan.cell_lengths,
        plan.cell_counts,
        plan.lows,
        plan.highs,
    )
    return tuple(torch.from_numpy(array).to(device) for array in arrays)


def _check_ascending(p: Tensor, d: Tensor, i: Tensor) -> None:
    rises = torch.ones_like(p, dtype=torch.bool)
    rises[1:] = (p[1:] > p[:-1]) | (i[1:] == 0)
    if not bool((rises & (p >= 0) & (p < d)).all()):
        raise ValueError("the positions do not ascend within their segment")


def _join(bits: Tensor) -> Tensor:
    """Bits, lowest first, as bytes: uint8 (n,) to uint8 (ceil(n / 8),)."""
    padded = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, device=bits.device)
    return (padded * weights).sum(dim=-1).to(torch.uint8)


def _bits(data: Tensor, count: int) -> Tensor:
    bits = (data[:, None] >> torch.arange(8, device=data.device) & 1).flatten()
    if bool(bits[count:].any()):
        raise ValueError("the bits that fill the last byte are not zero")
    return bits[:count]


def put_codes_plainly(
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
    return _join(bits.to(torch.uint8).flatten())


def get_codes_plainly(
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
    bits = _bits(data, -(-k // shared) * width).view(-1, width).to(torch.int64)
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


def put_bits(numbers: Integers, width: int) -> Bytes:
    """Numbers in [0, 2^width) one after another.

    Example:
        >>> put_bits(np.array([1, 2, 3]), 3)
        array([209,   0], dtype=uint8)
    """
    bits = (numbers[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def get_bits(data: Bytes, width: int, count: int) -> Integers:
    """The ``count`` numbers of ``width`` bits."""
    bits = np.unpackbits(data, bitorder="little")
    if bits[width * count :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    weighted = bits[: width * count].reshape(count, width).astype(np.int64) << np.arange(width)
    numbers: Integers = weighted.sum(axis=1)
    return numbers


def put_rice_plainly(positions: Integers, d: int) -> tuple[Bytes, Bytes, Bytes]:
    """As :func:`laconic.kernels.rice.put_rice`."""
    _require_ascending(positions, d)
    gaps = np.diff(positions, prepend=-1) - 1
    starts = range(0, gaps.size, RICE_BLOCK)
    lows = [_best_low(gaps[start : start + RICE_BLOCK]) for start in starts]
    each = np.repeat(lows, RICE_BLOCK)[: gaps.size].astype(np.int64)
    bits = np.concatenate(
        [(gap >> np.arange(low)) & 1 for gap, low in zip(gaps.tolist(), each.tolist(), strict=True)]
    )
    places = np.cumsum((gaps >> each) + 1) - 1
    marks = np.zeros(places[-1] + 1, np.uint8)
    marks[places] = 1
    return (
        put_bits(np.array(lows, np.int64), RICE_WIDTH),
        np.packbits(bits.astype(np.uint8), bitorder="little"),
        np.packbits(marks, bitorder="little"),
    )


def _best_low(gaps: Integers) -> int:
    return min(range(1 << RICE_WIDTH), key=lambda low: gaps.size * low + int((gaps >> low).sum()))


def get_rice_plainly(lows: Integers, low: Bytes, high: Bytes, d: int, k: int) -> Integers:
    """As :func:`laconic.kernels.rice.get_rice`."""
    each = np.repeat(lows, RICE_BLOCK)[:k]
    bits = np.unpackbits(low, bitorder="little")
    if bits[each.sum() :].any():
        raise ValueError("the bits that fill the last byte are not zero")
    starts = np.cumsum(each) - each
    rest = [
        int(bits[s : s + n].astype(np.int64) @ (1 << np.arange(n))) for s, n in zip(starts, each, strict=True)
    ]
    ones = np.flatnonzero(np.unpackbits(high, bitorder="little")).astype(np.int64)
    if ones.size != k:
        raise ValueError(f"{ones.size} bits are ones, not {k}")
    if high[-1] == 0:
        raise ValueError("bytes of zeros follow the last gap")
    zeros = np.diff(ones, prepend=-1) - 1
    if bool((zeros > d >> each).any()):
        raise ValueError(f"the positions do not ascend within [0, {d})")
    positions: Integers = np.cumsum((zeros << each) + rest + 1) - 1
    _require_ascending(positions, d)
    return positions


def _require_ascending(positions: Integers, d: int) -> None:
    if positions.size and (positions[0] < 0 or positions[-1] >= d or bool((np.diff(positions) <= 0).any())):
        raise ValueError(f"the positions do not ascend within [0, {d})")
