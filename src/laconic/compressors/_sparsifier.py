"""What a sparsifier is: a compressor that keeps some coordinates as they are."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from laconic.compressors._base import Compressor, Undo
from laconic.compressors._constants import Constants
from laconic.compressors._finite import NotFiniteError, require_finite
from laconic.kernels import Cuts, Stream, flat_places, move_top_k_, top_k_segments
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
        return self._parts(segments, found)

    def move_segments_(
        self,
        segments: Sequence[Segment],
        draw: Stream,
        memory: Tensor,
        target: Tensor | None = None,
    ) -> tuple[list[Part], Undo] | None:
        """All segments of one vector in one call, where the largest magnitudes are kept."""
        cuts = self.cuts(tuple(segments))
        if (
            cuts is None
            or not memory.is_contiguous()
            or not _is_row(memory if target is None else target, memory)
        ):
            return None
        positions, values, before = move_top_k_(memory, cuts, target, salt=draw.round)

        def undo(moved: Tensor) -> None:
            moved[flat_places(positions, cuts)] = before

        try:
            require_finite(values)
        except NotFiniteError:
            undo(memory)
            raise
        return self._parts(segments, self._split(segments, cuts, positions, values)), undo

    def track_(self, memory: Tensor, target: Tensor, draw: Stream) -> Message:
        """Compress ``target - memory`` and add the decoded message to ``memory``, in place."""
        moved = self.move_segments_(_whole(target.shape[-1]), draw, memory, target)
        return super().track_(memory, target, draw) if moved is None else Message(tuple(moved[0]))

    def drain_(self, residual: Tensor, draw: Stream) -> Message:
        """Compress ``residual`` and subtract the decoded message from it, in place."""
        moved = self.move_segments_(_whole(residual.shape[-1]), draw, residual)
        return super().drain_(residual, draw) if moved is None else Message(tuple(moved[0]))

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
        if not _is_row(target, memory):
            found = [self._largest_of(segment, draw, target, memory) for segment in segments]
            for _, numbers in found:
                require_finite(numbers)
            return found
        positions, values = top_k_segments(target, memory, cuts, salt=draw.round)
        require_finite(values)
        return self._split(segments, cuts, positions, values)

    def _split(
        self, segments: Sequence[Segment], cuts: Cuts, positions: Tensor, values: Tensor
    ) -> list[tuple[Selection, Tensor]]:
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

    def _parts(self, segments: Sequence[Segment], found: list[tuple[Selection, Tensor]]) -> list[Part]:
        return [self._part(segment.numel, *one) for segment, one in zip(segments, found, strict=True)]

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


def _is_row(x: Tensor, memory: Tensor | None = None) -> bool:
    """Whether one call takes x, or x - memory, whole."""
    fits = memory is None or memory.dtype == accumulation_dtype(x.dtype)
    return x.dim() == 1 and x.is_contiguous() and fits


@lru_cache(maxsize=64)
def _whole(d: int) -> tuple[Segment, ...]:
    return (Segment("", (d,), 0),)


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
