"""The base class of quantizers, which send every coordinate as a number of fewer bits."""

from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._job import Compressed, Job, nothing_to_undo
from laconic.formats import GroupFormat
from laconic.formats.grids import Grid, level_table
from laconic.kernels import Levels, SegmentedInput, Stream, add_segments
from laconic.messages import Group, Message, Part, add_nodes_


class Quantizer(Compressor):
    """A compressor that works on all numbers of a group in one call."""

    moves_memory = False

    joint_on_device = False
    """Whether :meth:`columns` takes segments on a device; else these are compressed one by one."""

    @abstractmethod
    def part(self, x: Tensor, draw: Stream) -> Part:
        """What is sent of one segment.

        Args:
            x: what is compressed, (..., d).
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
        return Message((self.part(x, draw),))

    def compress_together(self, job: Job) -> Compressed | None:
        """A code or a narrower number for each coordinate of all segments, in one call."""
        vectors = job.vectors()
        if vectors is None or (vectors[0].on_device and not self.joint_on_device):
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


@lru_cache(maxsize=64)
def levels_of(grid: Grid, dtype: torch.dtype, device: torch.device) -> Levels:
    """A grid's levels, as the loops take them."""
    return Levels(level_table(grid, dtype, device), grid.window(dtype))


def as_scale(number: Tensor, dtype: torch.dtype) -> Tensor:
    """One number a row in a message's dtype, finite: (...) to (..., 1)."""
    return number.to(dtype).clamp(max=torch.finfo(dtype).max).unsqueeze(-1)
