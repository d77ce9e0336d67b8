"""A group of a message: the columns of all segments that share a compressor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from laconic.formats import GroupFormat, SegmentFormat
from laconic.formats.grids import level_table, signed_table
from laconic.kernels import dequantize_blocks, scatter_add_
from laconic.kernels.group_decode import decode
from laconic.kernels.receive import Received
from laconic.messages._part import Part

_CODES = (torch.int8, torch.int16, torch.int32)
"""The dtypes of codes that compiled loops take."""


@dataclass(frozen=True)
class Group:
    """The columns of a group, for a batch of nodes and runs.

    Args:
        format: which columns there are, and which segment owns each.
        values: (..., K) numbers of ``format.kind.dtype``, or codes of its grid in int8, int16 or int32.
        positions: int64 (..., K), counted from the start of each segment and ascending in it; None for dense
            kinds. Columns that are not used stand last among a segment's and hold its length.
        counts: int64 (..., S), columns in use; None where all are.
        scale: (..., scales) in the accumulation dtype; or None.
        low: as scale; or None.
        origin: int64 (..., 3), seed, round and node of the draw that gives the positions; or None. It travels
            where the format says so.
    """

    format: GroupFormat
    values: Tensor
    positions: Tensor | None = None
    counts: Tensor | None = None
    scale: Tensor | None = None
    low: Tensor | None = None
    origin: Tensor | None = None

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return self.values.shape[:-1]

    def tensors(self) -> dict[str, Tensor]:
        """The columns, by field; each is (..., something)."""
        names = ("values", "positions", "counts", "scale", "low", "origin")
        fields = {name: getattr(self, name) for name in names}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    def with_tensors(self, tensors: dict[str, Any]) -> "Group":
        """The same with other columns."""
        return replace(self, **tensors)

    @property
    def levels(self) -> Tensor | None:
        """The values of codes -L, ..., L, on the device of the columns; None for numbers."""
        kind = self.format.kind
        return None if kind.grid is None else signed_table(kind.grid, kind.dtype, self.values.device)

    def decode(self) -> Tensor:
        """The kept numbers: (..., K) in the accumulation dtype."""
        kind, device = self.format.kind, self.values.device
        if kind.grid is not None and not self.batch and device.type == "cpu":
            return decode(
                self.values,
                self.format.table,
                self.levels,
                self.scale,
                self.low,
                kind.block,
                self.format.factor_array,
                kind.dtype,
            )
        if kind.grid is None:
            numbers = self.values.to(self.format.accumulation)
        # A product changes its sign with either factor, so signs may come first: one look-up does.
        elif kind.has_low:
            numbers = self._with_low(level_table(kind.grid, kind.dtype, device))
        else:
            table = signed_table(kind.grid, kind.dtype, device)
            numbers = table[self.values.to(torch.int64) + len(table) // 2]
            if self.scale is not None:
                numbers = numbers * self.scale[..., self.format.on_device("scale_of_column", device)]
        if self.format.factors is None:
            return numbers
        factors = torch.from_numpy(self.format.factor_array).to(numbers.dtype)
        return numbers * factors[self.format.segment_of_column].to(device)

    def _with_low(self, levels: Tensor) -> Tensor:
        assert self.scale is not None
        assert self.low is not None
        if self.format.segments == 1:
            block = self.format.kind.block or max(1, self.format.columns)
            return dequantize_blocks(self.values, levels, self.scale, self.low, block)
        place = self.format.on_device("scale_of_column", self.values.device)
        span, low = self.scale[..., place], self.low[..., place]
        magnitude = low + levels[self.values.to(torch.int64).abs()] * span
        return torch.where(self.values < 0, -magnitude, magnitude)

    def flat_positions(self) -> Tensor:
        """Where each column lies in the message's flat vector: int64 (..., K)."""
        device = self.values.device
        assert self.positions is not None
        return self.positions + self.format.on_device("start_of_column", device)

    def add_to(self, out: Tensor, weight: float | Tensor) -> None:
        """``out <- fl(out + fl(weight * number))`` in place, in plain PyTorch; out is (..., d)."""
        numbers = self.decode().to(out.dtype)
        if not (isinstance(weight, float) and weight == 1.0):
            numbers = numbers * weight
        if self.positions is None:
            bounds = self.format.table.bounds.tolist()
            for s, (start, numel) in enumerate(zip(self.format.starts, self.format.numels, strict=True)):
                out[..., start : start + numel] += numbers[..., bounds[s] : bounds[s + 1]]
        elif self.counts is None:
            scatter_add_(out, self.flat_positions().unsqueeze(-2), numbers.unsqueeze(-2))
        else:
            unused = self.positions >= self.format.on_device("end_of_column", out.device)
            places = torch.where(unused, out.shape[-1], self.flat_positions())
            wide = torch.nn.functional.pad(out, (0, 1))
            scatter_add_(wide, places.unsqueeze(-2), numbers.unsqueeze(-2))
            out.copy_(wide[..., :-1])

    def received(self) -> Received:
        """The columns, as compiled loops take them; only without leading dimensions."""
        counts = None if self.counts is None else self.counts.cpu().numpy()
        return Received(self.values, self.positions, self.scale, self.low, counts, self.format.factor_array)

    def parts(self) -> list[Part]:
        """A view of each segment's columns."""
        bounds, blocks = self.format.table.bounds.tolist(), self.format.scale_bounds.tolist()
        return [
            self._part(s, slice(bounds[s], bounds[s + 1]), slice(blocks[s], blocks[s + 1]))
            for s in range(self.format.segments)
        ]

    def _part(self, s: int, columns: slice, blocks: slice) -> Part:
        one, kind = self.format, self.format.kind
        return Part(
            d=one.numels[s],
            values=self.values[..., columns],
            dtype=kind.dtype,
            positions=None if self.positions is None else self.positions[..., columns],
            count=None if self.counts is None else self.counts[..., s : s + 1],
            grid=kind.grid,
            scale=None if self.scale is None else self.scale[..., blocks],
            factor=1.0 if one.factors is None else one.factors[s],
            seeded=kind.seeded,
            low=None if self.low is None else self.low[..., blocks],
            block=kind.block,
            cells=None if one.cells is None else one.cells[s],
            origin=self._origin(s) if kind.sends_seed else None,
        )

    def whole_part(self) -> Part:
        """The columns of a group of one segment, and their origin also where it does not pay to send it."""
        (part,) = self.parts()
        return replace(part, origin=None if self.origin is None else self._origin(0))

    def _origin(self, s: int) -> Tensor:
        assert self.origin is not None
        number = self.origin.new_tensor(self.format.table.numbers[s]).expand(*self.batch, 1)
        return torch.cat((self.origin, number), dim=-1)


def join_parts(one: GroupFormat, parts: Sequence[Part]) -> Group:
    """The columns of a group's segments, one part a segment in their order.

    Raises:
        ValueError: where a part is not of the format.
    """
    for place, expected, part in zip(one.places, one.segment_formats, parts, strict=True):
        if _without_origin(part.format) != _without_origin(expected):
            raise ValueError(
                f"segment {place} was compressed to {part.format}, but its compressor declares {expected}"
            )
    first = parts[0]
    if len(parts) == 1:
        columns = {"values": first.values, "positions": first.positions, "counts": first.count}
        columns |= {"scale": first.scale, "low": first.low}
    else:
        columns = {
            "values": _joined([part.values for part in parts]),
            "positions": _joined([part.positions for part in parts]),
            "counts": _joined([part.count for part in parts]),
            "scale": _joined([part.scale for part in parts]),
            "low": _joined([part.low for part in parts]),
        }
    origin = None if first.origin is None else first.origin[..., :3]
    group = Group(one, origin=origin, **columns)  # type: ignore[arg-type]
    if one.kind.grid is None or group.values.dtype in _CODES:
        return group
    return replace(group, values=group.values.to(torch.int32))


def _without_origin(found: SegmentFormat) -> SegmentFormat:
    return replace(found, kind=replace(found.kind, sends_seed=False))


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    found = [column for column in columns if column is not None]
    return torch.cat(found, dim=-1) if found else None
