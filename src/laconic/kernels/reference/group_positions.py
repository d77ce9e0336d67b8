"""Bit packing of the positions of a group, on any device.

A number of ``width`` bits has its lowest bit first.
"""

import numpy as np
import torch
from torch import Tensor

from laconic.kernels.position_plan import BITMAP, CELLS, ELIAS_FANO, PositionPlan
from laconic.kernels.reference.bits import bits_of, joined
from laconic.kernels.tables import columns_used


def put_positions_reference(positions: Tensor, plan: PositionPlan) -> Tensor:
    """The bytes of :func:`laconic.kernels.group_positions.put_positions`: uint8 (plan.nbytes,).

    Raises:
        ValueError: as there.
    """
    device = positions.device
    d, width, form, length, count, low, high = _fields(plan, device)
    s, i, column = columns_used(plan.bounds, plan.used, device)
    p = positions[column]
    _check_ascending(p, d[s], i)
    cells = form[s] == CELLS
    within = p - torch.where(cells, length[s] * (i // count[s].clamp(min=1)), 0)
    if bool((cells & ((within < 0) | (within >= length[s]))).any()):
        raise ValueError("the positions do not keep to the cells of their segment")
    bits = torch.zeros(int(plan.lows[-1]), dtype=torch.uint8, device=device)
    for bit in range(int(plan.widths.max(initial=0))):
        own = bit < width[s]
        bits[(low[s] + i * width[s] + bit)[own]] = (within >> bit & 1)[own].to(torch.uint8)
    marks = torch.zeros(int(plan.highs[-1]), dtype=torch.uint8, device=device)
    fano, bitmap = form[s] == ELIAS_FANO, form[s] == BITMAP
    marks[(high[s] + (p >> width[s]) + i)[fano]] = 1
    marks[(high[s] + p)[bitmap]] = 1
    return torch.cat((joined(bits), joined(marks)))


def get_positions_reference(data: Tensor, plan: PositionPlan) -> Tensor:
    """The definition of :func:`laconic.kernels.group_positions.get_positions`: int64 (plan.columns,)."""
    d, width, form, length, count, low, high = _fields(plan, data.device)
    s, i, column = columns_used(plan.bounds, plan.used, data.device)
    bits = bits_of(data[: plan.low_bytes], int(plan.lows[-1]))
    marks = bits_of(data[plan.low_bytes :], int(plan.highs[-1]))
    p = i.clone()
    cells, marked = form[s] == CELLS, form[s] >= ELIAS_FANO
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
    fano = form[own] == ELIAS_FANO
    low_part = torch.where(width[own] > 0, p[marked], 0)
    p[marked] = torch.where(fano, (places - i[marked] << width[own]) + low_part, places)
    _check_ascending(p, d[s], i)
    kept = torch.from_numpy(np.diff(plan.bounds)).to(data.device)
    positions = d.repeat_interleave(kept)
    positions[column] = p
    return positions


def _fields(plan: PositionPlan, device: torch.device) -> tuple[Tensor, ...]:
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
