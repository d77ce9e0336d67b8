"""The base class of sparsifiers, which keep some coordinates as they are."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._constants import Constants
from laconic.compressors._job import Compressed, Job, nothing_to_undo
from laconic.compressors._joint_selection import Selected
from laconic.kernels import Stream
from laconic.messages import Group, Message, Part, add_nodes_


@dataclass(frozen=True)
class Selection:
    """Which coordinates a sparsifier keeps of each row; the fields are those of ``Part``."""

    positions: Tensor
    count: Tensor | None = None
    seeded: bool = False
    cells: tuple[int, int] | None = None
    origin: Tensor | None = None


class Sparsifier(Compressor):
    """A compressor that keeps coordinates, all multiplied by one factor."""

    varied: bool = False
    """Whether the number kept differs from draw to draw."""

    @abstractmethod
    def select(self, x: Tensor, draw: Stream) -> Selection:
        """The coordinates to keep of each row of x (..., d)."""

    @abstractmethod
    def kept(self, d: int) -> int:
        """The largest number of coordinates kept of d."""

    @abstractmethod
    def projection(self, d: int) -> Constants:
        """The constants without the factor, when kept coordinates stay as they are."""

    def factor(self, d: int) -> float:  # noqa: ARG002
        """What kept coordinates are multiplied by; 1 unless the sparsifier says otherwise."""
        return 1.0

    def select_together(self, job: Job, *, moves: bool = False) -> Selected | None:  # noqa: ARG002
        """The coordinates to keep of all segments of a group, in one call, where the sparsifier can.

        Args:
            job: what is compressed.
            moves: whether the memory of a job that tracks may move by what is selected.

        Returns:
            What :meth:`select` keeps of each segment; or None, the default.

        Raises:
            NotFiniteError: where what is to be compressed is not finite; the memory is then as before.
        """
        return None

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The kept coordinates, in x's dtype; the factor is applied when they are decoded."""
        selection = self.select(x, draw)
        return Message((self._part(x.shape[-1], selection, gather(x, selection)),))

    def compress_together(self, job: Job) -> Compressed | None:
        """The kept coordinates of all segments in one call, where the sparsifier selects in all at once."""
        found = self.select_together(job, moves=True)
        if found is None:
            return None
        group = Group(job.format, found.values, found.positions, found.counts, origin=found.origin)
        if job.update != "drain" or found.removed:
            return Compressed(group, found.undo)
        assert job.out is not None
        add_nodes_(job.out, [[group]], [-1.0])
        return Compressed(group, nothing_to_undo)

    def _part(self, d: int, selection: Selection, values: Tensor) -> Part:
        return Part(
            d=d,
            values=values,
            dtype=values.dtype,
            positions=selection.positions,
            count=selection.count,
            factor=self.factor(d),
            seeded=selection.seeded,
            cells=selection.cells,
            origin=selection.origin,
        )


def gather(x: Tensor, selection: Selection) -> Tensor:
    """The selected numbers of each row, 0 in places that are not used."""
    if selection.count is not None:
        x = torch.nn.functional.pad(x, (0, 1))
    return x.gather(-1, selection.positions)


def resolve_k(k: float, d: int) -> int:
    """The number of coordinates that ``k`` means for vectors of length d.

    An int is a count; a float in (0, 1) is a fraction: ``max(1, ceil(k d - 1e-9))``.

    Raises:
        ValueError: where the count exceeds d.
    """
    if isinstance(k, int):
        if k > d:
            raise ValueError(
                f"cannot keep k = {k} of {d} coordinates; use k <= {d} or a fraction such as k = 0.01"
            )
        return k
    return max(1, math.ceil(k * d - 1e-9))


def check_k(k: float) -> None:
    """Refuse what is neither a count >= 1 nor a fraction in (0, 1)."""
    if isinstance(k, bool) or not isinstance(k, (int, float)):
        raise TypeError(f"k must be an int (a count) or a float (a fraction), got {k!r}")
    if isinstance(k, int) and k < 1:
        raise ValueError(f"k = {k} keeps nothing; use a count >= 1 or a fraction in (0, 1)")
    if isinstance(k, float) and not 0.0 < k < 1.0:
        raise ValueError(
            f"the fraction k = {k} is outside (0, 1); to keep everything use Identity, "
            "for a count write an int"
        )
