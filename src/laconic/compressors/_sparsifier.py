"""What a sparsifier is: a compressor that keeps some coordinates as they are."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._constants import Constants
from laconic.compressors._finite import require_finite
from laconic.kernels import Cuts, Stream, top_k_segments
from laconic.layout import Segment
from laconic.messages import Message, Part, accumulation_dtype


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

    def cuts(self, segments: tuple[Segment, ...]) -> Cuts | None:  # noqa: ARG002
        """How segments are cut where the largest magnitudes are kept, so that one call selects in all."""
        return None

    def cells(self, d: int) -> tuple[int, int] | None:  # noqa: ARG002
        """Length and count where as many are kept of each stretch, else None."""
        return None

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The kept coordinates, in x's dtype; the factor is applied when they are decoded."""
        selection = self.select(x, draw)
        return Message((self._part(x.shape[-1], selection, gather(x, selection)),))

    def encode_segments(
        self, segments: Sequence[Segment], draw: Stream, target: Tensor, memory: Tensor | None = None
    ) -> list[Part]:
        """All segments of one vector in one call, where the largest magnitudes are kept."""
        found = self.largest(segments, draw, target, memory)
        if found is None:
            return super().encode_segments(segments, draw, target, memory)
        return [self._part(segment.numel, *one) for segment, one in zip(segments, found, strict=True)]

    def largest(
        self, segments: Sequence[Segment], draw: Stream, target: Tensor, memory: Tensor | None
    ) -> list[tuple[Selection, Tensor]] | None:
        """What is kept of each segment, and the numbers there; of a single vector, found in one call.

        Returns:
            None where a sparsifier does not keep the largest magnitudes.

        Raises:
            NotFiniteError: where what is to be compressed is not finite. No pass over the vector is needed
                to know: what is not finite is among the largest.
        """
        cuts = self.cuts(tuple(segments))
        if cuts is None:
            return None
        narrower = memory is not None and memory.dtype != accumulation_dtype(target.dtype)
        if target.dim() > 1 or not target.is_contiguous() or narrower:
            found = [self._largest_of(segment, draw, target, memory) for segment in segments]
            for _, numbers in found:
                require_finite(numbers)
            return found
        positions, values = top_k_segments(target, memory, cuts, salt=draw.round)
        require_finite(values)
        sizes = cuts.kept.tolist()
        return [
            (Selection(places, cells=self.cells(segment.numel)), numbers)
            for segment, places, numbers in zip(
                segments, torch.split(positions, sizes), torch.split(values, sizes), strict=True
            )
        ]

    def _largest_of(
        self, segment: Segment, draw: Stream, target: Tensor, memory: Tensor | None
    ) -> tuple[Selection, Tensor]:
        x = target[..., segment.offset : segment.end]
        if memory is not None:
            x = x - memory[..., segment.offset : segment.end]
        selection = self.select(x, draw.at(segment.number))
        return selection, gather(x, selection)

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
