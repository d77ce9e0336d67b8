"""The format of a group: its kind and its segments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from laconic.formats._kinds import Kind
from laconic.kernels.position_plan import PositionPlan, position_plan
from laconic.kernels.tables import Integers, SegmentTable, accumulation_dtype

T = TypeVar("T")

ORIGIN_BYTES = 16
"""Seed (8), round (4) and node (4) of the draw from which positions follow."""


@dataclass(frozen=True)
class SegmentFormat:
    """The format of one segment: what its compressor sends of vectors of its length.

    Args:
        d: length of the segment.
        k: the largest number of columns, d for dense kinds.
        kind: which columns there are.
        cells: (length, count) where the first ``count`` positions lie in [0, length), the next ``count`` in
            [length, 2 length), and so on; None where positions lie anywhere.
        factor: what decoded numbers are multiplied by.
    """

    d: int
    k: int
    kind: Kind
    cells: tuple[int, int] | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class GroupFormat:
    """Segments of a message that share compressor and kind, so that one call works on all of them.

    Segment s owns the columns from ``table.bounds[s]`` to ``table.bounds[s + 1]``.

    Args:
        kind: which columns there are.
        numels: (S,) lengths of the segments.
        kept: (S,) the largest number of columns of each.
        places: (S,) each segment's place in the message's layout, ascending.
        starts: (S,) where each starts in the message's flat vector.
        cells: (S,) as for :class:`SegmentFormat`; None where no segment has cells.
        factors: (S,) what decoded numbers are multiplied by; None where all are 1.
        numbers: (S,) each segment's number in the whole layout, which keys its draws.

    Example:
        >>> spec = SegmentFormat(10, 2, Kind(torch.float32, has_positions=True))
        >>> (group,) = group_formats([spec, spec])
        >>> group.columns, group.starts
        (4, (0, 10))
    """

    kind: Kind
    numels: tuple[int, ...]
    kept: tuple[int, ...]
    places: tuple[int, ...]
    starts: tuple[int, ...]
    cells: tuple[tuple[int, int], ...] | None = None
    factors: tuple[float, ...] | None = None
    numbers: tuple[int, ...] = field(default=(), compare=False)
    _made: dict[object, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def made_once(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` returned for this key at the first call, such as a table of blocks."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def on_device(self, name: str, device: torch.device) -> Tensor:
        """A table of columns, such as ``start_of_column``, on a device."""
        if device.type == "cpu":
            own: Tensor = getattr(self, name)
            return own
        found: Tensor = self.made_once((name, device), lambda: getattr(self, name).to(device))
        return found

    @cached_property
    def table(self) -> SegmentTable:
        """The segments, as compiled loops take them."""
        return SegmentTable(self.starts, self.numels, self.kept, self.numbers or self.places)

    @property
    def segments(self) -> int:
        """Number of segments, S."""
        return len(self.numels)

    @cached_property
    def d(self) -> int:
        """Numbers of all segments."""
        return sum(self.numels)

    @cached_property
    def columns(self) -> int:
        """Columns of all segments, K."""
        return sum(self.kept)

    @cached_property
    def scale_bounds(self) -> Integers:
        """int64 (S + 1,): where each segment's scales begin and end."""
        return self.table.blocks(self.kind.block)

    @property
    def scales(self) -> int:
        """Number of scales of all segments; 0 without scales."""
        return int(self.scale_bounds[-1]) if self.kind.has_scale else 0

    @property
    def accumulation(self) -> torch.dtype:
        """dtype of the decoded numbers."""
        return accumulation_dtype(self.kind.dtype)

    @cached_property
    def cell_arrays(self) -> tuple[Integers, Integers]:
        """Lengths and counts of cells, int64 (S,) each; zeros where there are none."""
        pairs = np.array(self.cells or [(0, 0)] * self.segments, np.int64)
        return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])

    @cached_property
    def factor_array(self) -> Any:
        """float64 (S,), or None where all factors are 1."""
        return None if self.factors is None else np.array(self.factors, np.float64)

    @cached_property
    def plan(self) -> PositionPlan:
        """How positions travel where all columns are used."""
        return self.plan_for(self.table.kept_array)

    def plan_for(self, used: Integers) -> PositionPlan:
        """How positions travel where ``used`` (S,) columns are."""
        return position_plan(self.table.numel_array, used, *self.cell_arrays, kept=self.table.kept_array)

    @cached_property
    def segment_of_column(self) -> Tensor:
        """int64 (K,): the segment that owns each column."""
        return torch.from_numpy(np.repeat(np.arange(self.segments), self.table.kept_array))

    @cached_property
    def scale_of_column(self) -> Tensor:
        """int64 (K,): the scale of each column."""
        starts = np.repeat(self.scale_bounds[:-1], self.table.kept_array)
        if self.kind.block is None:
            return torch.from_numpy(starts)
        within = np.arange(self.columns) - np.repeat(self.table.bounds[:-1], self.table.kept_array)
        return torch.from_numpy(starts + within // self.kind.block)

    @cached_property
    def start_of_column(self) -> Tensor:
        """int64 (K,): where the segment that owns each column starts in the message's flat vector."""
        return torch.from_numpy(np.repeat(self.table.start_array, self.table.kept_array))

    @cached_property
    def end_of_column(self) -> Tensor:
        """int64 (K,): the length of the segment that owns each column, which unused positions hold."""
        return torch.from_numpy(np.repeat(self.table.numel_array, self.table.kept_array))

    @property
    def segment_formats(self) -> list[SegmentFormat]:
        """The format of each segment."""
        cells = self.cells or (None,) * self.segments
        factors = self.factors or (1.0,) * self.segments
        return [
            SegmentFormat(d, k, self.kind, cell, factor)
            for d, k, cell, factor in zip(self.numels, self.kept, cells, factors, strict=True)
        ]

    def adapted(self) -> "GroupFormat":
        """The same, with positions that travel in blocks that adapt to their density."""
        if not self.kind.has_positions or self.kind.sends_seed or not self.columns:
            return self
        return replace(self, kind=replace(self.kind, adaptive=True))


def group_formats(
    formats: Sequence[SegmentFormat],
    *,
    numbers: Sequence[int] | None = None,
    keys: Sequence[object] | None = None,
) -> tuple[GroupFormat, ...]:
    """The groups of a message, given the format of each segment in the order of its layout.

    Args:
        formats: (S,) one a segment.
        numbers: (S,) each segment's number in the whole layout; its place by default.
        keys: (S,) segments of unlike keys, such as compressors, share no group.
    """
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum([one.d for one in formats]))).tolist()
    together: dict[object, list[int]] = {}
    for place, one in enumerate(formats):
        key = (one.kind, one.cells is not None, None if keys is None else keys[place])
        together.setdefault(key, []).append(place)
    return tuple(_group(formats, places, starts, numbers) for places in together.values())


def _group(
    formats: Sequence[SegmentFormat], places: list[int], starts: list[int], numbers: Sequence[int] | None
) -> GroupFormat:
    chosen = [formats[place] for place in places]
    factors = tuple(one.factor for one in chosen)
    cells = [one.cells for one in chosen if one.cells is not None]
    group = GroupFormat(
        kind=chosen[0].kind,
        numels=tuple(one.d for one in chosen),
        kept=tuple(one.k for one in chosen),
        places=tuple(places),
        starts=tuple(starts[place] for place in places),
        cells=tuple(cells) or None,
        factors=None if all(factor == 1.0 for factor in factors) else factors,
        numbers=tuple(places if numbers is None else (numbers[place] for place in places)),
    )
    if group.kind.sends_seed and group.plan.nbytes <= ORIGIN_BYTES:
        return replace(group, kind=replace(group.kind, sends_seed=False))
    return group
