"""The base class of quantizers, which send every coordinate as a number of fewer bits."""

from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._finite import NOT_FINITE, NotFiniteError
from laconic.compressors._job import Compressed, Job, nothing_to_undo
from laconic.formats import GroupFormat
from laconic.formats.grids import Grid, level_table
from laconic.kernels import (
    Levels,
    SegmentedInput,
    Step,
    Stream,
    add_segments,
    all_finite,
    norm,
    norms,
    round_segments,
    round_to_levels,
)
from laconic.messages import Group, Message, Part, add_nodes_


class Quantiser(Compressor):
    """A compressor that works on all numbers of a group in one call."""

    moves_memory = False

    @abstractmethod
    def part(self, step: Step, draw: Stream) -> Part:
        """What is sent of one segment.

        Args:
            step: what is compressed, (..., d).
            draw: as for :meth:`encode`.
        """

    @abstractmethod
    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:
        """What is sent of all segments of a group.

        Args:
            one: the group's format.
            inputs: what is compressed.
            draw: the draws of this seed, round and node.

        Raises:
            NotFiniteError: for NaN or infinity.
        """

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """A code or a narrower number for each coordinate."""
        return Message((self.part(Step(x), draw),))

    def compress_together(self, job: Job) -> Compressed | None:
        """A code or a narrower number for each coordinate of all segments, in one call."""
        vectors = job.vectors()
        if vectors is None:
            return None
        x, memory = vectors
        if job.update != "drain":
            return Compressed(
                self.columns(job.format, SegmentedInput.of(x, job.format.table, memory), job.draw)
            )
        assert job.out is not None
        assert memory is not None
        out = job.at(job.out)
        add_segments(out, memory, x, job.format.table.numel_array)
        group = self.columns(job.format, SegmentedInput.of(out, job.format.table), job.draw)
        add_nodes_(job.out, [[group]], [-1.0])
        return Compressed(group, nothing_to_undo)

    def kept_columns(self, values: Tensor, job: Job) -> Group:
        """What is sent of the numbers (K,) that a sparsifier keeps of each segment of a job."""
        return self.columns(job.format, SegmentedInput.of_kept(values, job.format.table), job.draw)


def require_all_finite(finite: bool) -> None:
    """NotFiniteError unless all numbers that were read are finite."""
    if not finite:
        raise NotFiniteError(NOT_FINITE)


def require_finite_sums(sums: Tensor, inputs: SegmentedInput) -> None:
    """NotFiniteError unless all numbers are finite, given sums over each segment."""
    # A sum of huge float64 numbers may overflow where they do not.
    require_all_finite(bool(torch.isfinite(sums).all()) or all_finite(inputs))


@lru_cache(maxsize=64)
def levels_of(grid: Grid, dtype: torch.dtype, device: torch.device) -> Levels:
    """A grid's levels, as the loops take them."""
    return Levels(level_table(grid, dtype, device), grid.window(dtype))


def rounded(step: Step, grid: Grid, draw: Stream | None) -> Part:
    """Codes of a grid: at random without bias, or without ``draw`` of the nearest levels."""
    levels = levels_of(grid, step.dtype, step.x.device)
    return Part(d=step.d, values=round_to_levels(step, levels, draw), dtype=step.dtype, grid=grid)


def rounded_columns(one: GroupFormat, inputs: SegmentedInput, draw: Stream | None) -> Group:
    """As :func:`rounded`, of all segments."""
    assert one.kind.grid is not None
    levels = levels_of(one.kind.grid, one.kind.dtype, torch.device("cpu"))
    codes, finite = round_segments(inputs, levels, draw)
    require_all_finite(finite)
    return Group(one, codes)


def dithered(step: Step, p: float, grid: Grid, draw: Stream) -> Part:
    """Codes of a grid, at random without bias, of magnitudes relative to the p-norm."""
    levels, scale = levels_of(grid, step.dtype, step.x.device), as_scale(norm(step, p), step.dtype)
    codes = round_to_levels(step, levels, draw, scale=scale)
    return Part(d=step.d, values=codes, dtype=step.dtype, grid=grid, scale=scale)


def dithered_columns(one: GroupFormat, inputs: SegmentedInput, p: float, draw: Stream) -> Group:
    """As :func:`dithered`, of all segments."""
    assert one.kind.grid is not None
    levels = levels_of(one.kind.grid, one.kind.dtype, torch.device("cpu"))
    found = norms(inputs, p)
    require_finite_sums(found, inputs)
    scale = as_scale(found, one.kind.dtype)[..., 0]
    codes, _ = round_segments(inputs, levels, draw, scale=scale)
    return Group(one, codes, scale=scale)


def as_scale(number: Tensor, dtype: torch.dtype) -> Tensor:
    """One number a row in a message's dtype, finite: (...) to (..., 1)."""
    return number.to(dtype).clamp(max=torch.finfo(dtype).max).unsqueeze(-1)
