"""The base class of sparsifiers, which keep some coordinates as they are, and their joint selection."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._constants import Constants
from laconic.compressors._finite import NotFiniteError, require_finite
from laconic.compressors._job import Compressed, Job, Undo, nothing_to_undo
from laconic.formats import GroupFormat, accumulation_dtype
from laconic.kernels import Cuts, Stream, select_segments, top_k_segments
from laconic.messages import Group, Message, Part


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

    def cuts(self, group: GroupFormat) -> Cuts | None:  # noqa: ARG002
        """How segments are cut where the largest magnitudes are kept, so that one call selects in all."""
        return None

    def cells(self, d: int) -> tuple[int, int] | None:  # noqa: ARG002
        """Length and count where as many are kept of each stretch, else None."""
        return None

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The kept coordinates, in x's dtype; the factor is applied when they are decoded."""
        selection = self.select(x, draw)
        return Message((self._part(x.shape[-1], selection, gather(x, selection)),))

    def compress_together(self, job: Job) -> Compressed | None:
        """All segments of a vector in one call, where the largest magnitudes are kept."""
        found = select_largest(self, job, moves=True)
        if found is None:
            return None
        group = Group(job.format, found.values, found.positions)
        return Compressed(group, found.undo)

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


@dataclass(frozen=True, eq=False)
class Selected:
    """The columns of largest magnitude of all segments of a group.

    Args:
        positions: int64 (K,), from the start of each segment.
        values: (K,).
        undo: puts back what has moved with the selection; None where nothing has.
    """

    positions: Tensor
    values: Tensor
    undo: Undo | None = None


def select_largest(sparsifier: Sparsifier, job: Job, *, moves: bool = False) -> Selected | None:
    """The largest magnitudes of all segments, found in one call.

    Args:
        sparsifier: which numbers are kept.
        job: what is compressed.
        moves: whether the memory of a job that tracks is to move by what is selected. What a job that drains
            selects is taken from its ``out`` in any case.

    Returns:
        None where the sparsifier does not keep the largest magnitudes, or loops do not take the vectors.

    Raises:
        NotFiniteError: where what is to be compressed is not finite. No pass over the vector is needed
            to know: what is not finite is among the largest.
    """
    cuts = sparsifier.cuts(job.format)
    if cuts is None:
        return None
    if (vectors := job.vectors()) is None:
        return _select_on_device(job, cuts)
    x, memory = vectors
    salt = job.draw.round
    if job.update == "drain":
        assert job.out is not None
        found = select_segments(x, memory, cuts, salt=salt, move="drain", out=job.at(job.out))
        require_finite(found.values)
        return Selected(found.positions, found.values, nothing_to_undo)
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
    return Selected(found.positions, found.values, undo)


def _select_on_device(job: Job, cuts: Cuts) -> Selected | None:
    flat, memory = job.target.flat, job.memory
    if flat is None or flat.dim() != 1 or not flat.is_contiguous() or job.update == "drain":
        return None
    if memory is not None and memory.dtype != accumulation_dtype(flat.dtype):
        return None
    positions, values = top_k_segments(flat, memory, cuts, salt=job.draw.round)
    require_finite(values)
    return Selected(positions, values)


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
