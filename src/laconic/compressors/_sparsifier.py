"""The base class of sparsifiers, which keep some coordinates, and chains of one with a quantizer."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laconic.compressors._base import Compressor, Scaled, scaled_constants
from laconic.compressors._constants import Constants
from laconic.compressors._job import Compressed, Job, nothing_to_undo
from laconic.compressors._joint_selection import Selected
from laconic.compressors._quantizer import Quantizer
from laconic.compressors._selection import Selection, gather
from laconic.formats import GroupFormat, SegmentFormat, accumulation_dtype
from laconic.kernels import Stream
from laconic.messages import Group, Message, Part, add_nodes_


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

    def __rshift__(self, then: Compressor) -> "Chain":
        """``first >> then``: what ``first`` keeps is compressed by ``then``.

        Raises:
            TypeError: unless ``then`` is a quantizer that suits ``first``.
        """
        return chain(self, then)


def chain(first: Sparsifier, then: Compressor) -> "Chain":
    """``then`` after ``first``, on the coordinates that ``first`` keeps.

    Raises:
        TypeError: unless then is a quantizer that suits first.
    """
    inner = then
    while isinstance(inner, Scaled):
        inner = inner.inner
    if not isinstance(inner, Compressor) or isinstance(inner, (Sparsifier, Chain)):
        raise TypeError(f"{first!r} >> {then!r}: the second must be a quantizer, such as NaturalCompression")
    if first.varied and not then.keeps_zeros:
        raise TypeError(
            f"{first!r} >> {then!r}: the number kept varies, and the second does not leave the zeros in "
            "unused places alone; use a sparsifier that keeps a fixed number, such as RandK"
        )
    return Chain(first, then)


@dataclass(frozen=True)
class Chain(Compressor):
    """``then(first(x))`` on the support of ``first``; no hidden factor.

    "On Biased Compression", Section 2.2 (k), for Top-k and exponential dithering; in general: the two
    errors are orthogonal where ``first`` keeps coordinates as they are, so with q its gamma and k the
    largest number it keeps, gamma = q gamma_then(k), alpha = q alpha_then(k), beta = beta_then(k), and
    1/delta = q / delta_then(k). ``then`` is charged for k coordinates, not d: it sees no others.

    Example:
        >>> import laconic
        >>> both = laconic.TopK(10) >> laconic.NaturalCompression()
        >>> both.constants(1000).contraction == 10 / 1000 * (2 - 9 / 8)
        True
    """

    first: Sparsifier
    then: Compressor

    moves_memory = False

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether either is."""
        return self.first.random or self.then.random

    @property
    def keeps_zeros(self) -> bool:  # type: ignore[override]
        """As ``then``: ``first`` may keep coordinates that are 0."""
        return self.then.keeps_zeros

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The positions of ``first``, the values of ``then``."""
        selection = self.first.select(x, draw)
        kept = gather(x, selection)
        factor = self.first.factor(x.shape[-1])
        if factor != 1.0:
            kept = kept.to(accumulation_dtype(kept.dtype)) * factor
        return Message((self._part(x.shape[-1], selection, kept, draw),))

    def compress_together(self, job: Job) -> Compressed | None:
        """Select in all segments in one call, and quantize what is kept in another, where possible."""
        quantizer = self.then
        while isinstance(quantizer, Scaled):  # the factor is in the group's format
            quantizer = quantizer.inner
        if not isinstance(quantizer, Quantizer) or job.target.batch:
            return None
        if job.target.like.device.type != "cpu" and not quantizer.joint_on_device:
            return None
        found = self.first.select_together(job)
        if found is None:
            return None
        columns = quantizer.kept_columns(self._multiplied(found.values, job.format), job)
        group = replace(
            columns,
            format=job.format,
            positions=found.positions,
            counts=found.counts,
            origin=found.origin,
        )
        if job.update != "drain":
            return Compressed(group, found.undo)
        assert job.out is not None
        add_nodes_(job.out, [[group]], [-1.0])
        return Compressed(group, nothing_to_undo)

    def _multiplied(self, values: Tensor, one: GroupFormat) -> Tensor:
        """Kept numbers (K,) times the factor of ``first``."""
        factors = one.made_once(("factors", id(self.first)), lambda: self._factors(one))
        if factors is None:
            return values
        values = values.to(accumulation_dtype(values.dtype))
        return values * factors.to(values.device, values.dtype)

    def _factors(self, one: GroupFormat) -> Tensor | None:
        """The factor of ``first`` of each column, float64 (K,); None where all are 1."""
        factors = torch.tensor([self.first.factor(d) for d in one.numels], dtype=torch.float64, device="cpu")
        return None if bool((factors == 1.0).all()) else factors[one.segment_of_column]

    def _part(self, d: int, selection: Selection, kept: Tensor, draw: Stream) -> Part:
        (part,) = self.then.encode(kept, draw).parts
        if part.positions is not None:
            raise TypeError(f"{self.then!r} keeps positions of its own, so it cannot follow {self.first!r}")
        return replace(
            part,
            d=d,
            positions=selection.positions,
            count=selection.count,
            seeded=selection.seeded,
            cells=selection.cells,
            origin=selection.origin,
        )

    def constants(self, d: int) -> Constants:
        """The product rule above; the factor of ``first`` by Theorem 6, unbiasedness where both are."""
        first, k = self.first, self.first.kept(d)
        then, base = self.then.constants(k), first.projection(d)
        if then.alpha is None or then.beta is None or then.gamma is None:
            return Constants()
        assert base.alpha is not None
        assert base.gamma is not None
        plain = Constants(
            alpha=base.alpha * then.alpha,
            beta=then.beta,
            gamma=base.gamma * then.gamma,
            delta=None if then.delta is None else then.delta / base.gamma,
        )
        factor = first.factor(d)
        if factor == 1.0:
            return plain
        scaled = scaled_constants(plain, factor)
        zeta = first.constants(d).zeta
        if zeta is None or then.zeta is None:
            return scaled
        return replace(scaled, zeta=zeta * then.zeta)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """The positions of ``first``, the values of ``then``."""
        first = self.first.structure(d, dtype)
        kept = dtype if self.first.factor(d) == 1.0 else accumulation_dtype(dtype)
        then = self.then.structure(first.k, kept)
        kind = replace(
            then.kind,
            has_positions=True,
            has_counts=first.kind.has_counts,
            seeded=first.kind.seeded,
            sends_seed=first.kind.sends_seed,
        )
        return SegmentFormat(d, first.k, kind, first.cells, then.factor)
