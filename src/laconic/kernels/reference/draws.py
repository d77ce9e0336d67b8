"""Random positions in all segments of a group, and the numbers at given positions, segment by segment."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.philox import Purpose, permuted_reference, uniform_reference
from laconic.kernels.tables import Integers, SegmentTable


def permuted_segments_reference(origin: Tensor, table: SegmentTable) -> Tensor:
    """The definition of :func:`laconic.kernels.permuted_segments`."""
    pieces = [
        permuted_reference(_at(origin, number), d, k).sort(dim=-1).values
        for number, d, k in zip(table.numbers, table.numels, table.kept, strict=True)
    ]
    return torch.cat(pieces, dim=-1)


def chosen_segments_reference(
    origin: Tensor, p: float | tuple[float, ...], table: SegmentTable
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`laconic.kernels.chosen_segments`."""
    probability = torch.as_tensor(p, dtype=torch.float64, device=origin.device)
    positions, counts = [], []
    for number, d in zip(table.numbers, table.numels, strict=True):
        kept = uniform_reference(_at(origin, number), d, Purpose.SELECTION) < probability
        position = torch.arange(d, device=origin.device)
        positions.append(torch.where(kept, position, d).sort(dim=-1).values)
        counts.append(kept.sum(dim=-1, keepdim=True))
    return torch.cat(positions, dim=-1), torch.cat(counts, dim=-1)


def gather_segments_reference(rows: Sequence[Tensor], positions: Tensor, bounds: Integers) -> Tensor:
    """The definition of :func:`laconic.kernels.gather_segments`."""
    pieces = []
    for s, row in enumerate(rows):
        place = positions[bounds[s] : bounds[s + 1]].clamp(max=len(row))
        pieces.append(torch.nn.functional.pad(row, (0, 1))[place])
    return torch.cat(pieces)


def _at(origin: Tensor, number: int) -> Tensor:
    """The origin of the draws of a segment."""
    return torch.cat((origin[..., :3], torch.full_like(origin[..., 3:], number)), dim=-1)
