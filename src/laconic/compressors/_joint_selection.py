"""Selection of the coordinates to keep in all segments of a group, in one call."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.compressors._job import Job, Undo, nothing_to_undo
from laconic.compressors._not_finite import (
    NotFiniteError,
    finite_flag,
    require_all_finite,
    require_finite,
)
from laconic.formats import GroupFormat, accumulation_dtype
from laconic.kernels import (
    SegmentedInput,
    SelectionTable,
    add_segments,
    all_finite,
    gather_segments,
    select_segments,
    top_k_segments,
)
from laconic.kernels.tables import Computed, Vectors


@dataclass(frozen=True, eq=False)
class Selected:
    """What is kept of all segments of a group; the columns are those of ``Group``.

    Args:
        positions: int64 (..., K), from the start of each segment.
        values: (..., K), before any factor.
        counts: int64 (..., S), columns in use; None where all are.
        origin: int64 (..., 3), seed, round and node of the draw that gives the positions; or None.
        removed: whether the values have been taken away from the ``out`` of a job that drains.
        undo: puts back what has moved with the selection; None where nothing has.
    """

    positions: Tensor
    values: Tensor
    counts: Tensor | None = None
    origin: Tensor | None = None
    removed: bool = False
    undo: Undo | None = None


def select_at(
    job: Job, positions: Tensor, counts: Tensor | None = None, origin: Tensor | None = None
) -> Selected:
    """The numbers at positions that do not depend on what is compressed; arguments as for :class:`Selected`.

    Of a job that drains, ``out`` gets ``fl(memory + target)``.

    Raises:
        NotFiniteError: where what is to be compressed is not finite.
    """
    table, vectors = job.format.table, job.vectors()
    if vectors is None or vectors[0].on_device:
        numbers = job.numbers()
        require_finite(numbers)
        batch = numbers.shape[:-1]
        positions = positions.expand(*batch, -1)
        counts = None if counts is None else counts.expand(*batch, -1)
        origin = None if origin is None else origin.expand(*batch, -1)
        return Selected(positions, _gathered(numbers, positions, job.format), counts, origin)
    x, memory = vectors
    if job.update == "drain":
        assert job.out is not None
        assert memory is not None
        out = job.at(job.out)
        add_segments(out, memory, x, table.numel_array)
        x, memory = out, None
    inputs = SegmentedInput.of(x, table, memory)
    require_all_finite(all_finite(inputs))
    return Selected(positions, gather_segments(inputs, positions, table.bounds), counts, origin)


def _gathered(x: Tensor, positions: Tensor, one: GroupFormat) -> Tensor:
    """The numbers of x (..., D) at positions (..., K), 0 where a position is not in its segment."""
    starts, ends = (each.to(x.device) for each in one.made_once("gathered", lambda: _starts_and_ends(one)))
    places = torch.where(positions < ends, positions + starts, x.shape[-1])
    return torch.nn.functional.pad(x, (0, 1)).gather(-1, places)


def _starts_and_ends(one: GroupFormat) -> tuple[Tensor, Tensor]:
    """int64 (K,) each: where a column's segment starts among the group's numbers, and its length."""
    starts = np.cumsum(one.table.numel_array) - one.table.numel_array
    return torch.from_numpy(np.repeat(starts, one.table.kept_array)), one.end_of_column


def select_largest(job: Job, cuts: SelectionTable, *, moves: bool = False) -> Selected | None:
    """The largest magnitudes of all segments.

    Args:
        job: what is compressed.
        cuts: how segments are cut, and how many numbers each keeps.
        moves: whether the memory of a job that tracks, or the ``out`` of one that drains, is to move by what
            is selected.

    Returns:
        None where loops do not take the vectors.

    Raises:
        NotFiniteError: where what is to be compressed is not finite. No pass over the vector is needed
            to know: what is not finite is among the largest.
    """
    if job.target.like.device.type != "cpu":
        return _select_on_device(job, cuts, moves)
    salt = job.draw.round
    x: Vectors | Computed
    memory: Vectors | None
    if (computed := job.computed()) is not None:
        assert job.memory is not None
        x, memory = computed, job.at(job.memory)
    elif (vectors := job.vectors()) is None:
        return None
    else:
        x, memory = vectors
    if job.update == "drain":
        assert job.out is not None
        found = select_segments(
            x, memory, cuts, salt=salt, move="drain" if moves else "sum", out=job.at(job.out)
        )
        require_finite(found.values)
        return Selected(found.positions, found.values, removed=moves, undo=nothing_to_undo)
    tracks = moves and job.update == "track"
    found = select_segments(x, memory, cuts, salt=salt, move="track" if tracks else "none")
    if found.before is None:
        require_finite(found.values)
        return Selected(found.positions, found.values)
    places, before = found.positions, found.before

    def undo(moved: Tensor) -> None:
        moved[places + job.format.start_of_column] = before

    try:
        require_finite(found.values)
    except NotFiniteError:
        assert job.memory is not None
        undo(job.memory)
        raise
    return Selected(found.positions, found.values, undo=undo)


def _select_on_device(job: Job, cuts: SelectionTable, moves: bool) -> Selected | None:
    """As :func:`select_largest`; a memory that is tracked is moved later."""
    vectors, flat, memory = job.vectors(), job.target.flat, job.memory
    if vectors is None or flat is None:
        return None
    drains = job.update == "drain"
    if drains:
        assert job.out is not None
        assert vectors[1] is not None
        add_segments(job.at(job.out), vectors[1], vectors[0], job.format.table.numel_array)
        flat, memory = job.out, None
    if memory is not None and memory.dtype != accumulation_dtype(flat.dtype):
        return None
    positions, values = top_k_segments(flat, memory, cuts, salt=job.draw.round)
    require_all_finite(finite_flag(values))
    if not (drains and moves):
        return Selected(positions, values, undo=nothing_to_undo if drains else None)
    places = positions + job.format.on_device("start_of_column", flat.device)
    flat.scatter_(0, places, 0.0)
    return Selected(positions, values, removed=True, undo=nothing_to_undo)
