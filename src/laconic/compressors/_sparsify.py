"""The sparsifiers: Top-k, and coordinates drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor, unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._job import Compressed, Job
from laconic.compressors._quantise import require_all_finite
from laconic.compressors._sparsifier import Selection, Sparsifier, check_k, resolve_k
from laconic.formats import GroupFormat, Kind, SegmentFormat
from laconic.kernels import (
    Cuts,
    Purpose,
    SegmentedInput,
    Stream,
    canonical_prefix_sums,
    cast_segments,
    shifted,
    top_k_positions,
)
from laconic.messages import Group, Message, Part


@dataclass(frozen=True)
class TopK(Sparsifier):
    """Keeps the k coordinates of largest magnitude; ties go to the lowest position.

    "On Biased Compression", Section 2.2 (d); B1(k/d, 1), B2(k/d, 1), B3(d/k) by Lemma 8 ff. and Table 3.

    Args:
        k: an int counts coordinates of each segment; a float in (0, 1) is the fraction
            ``max(1, ceil(k d - 1e-9))``.

    Raises:
        ValueError: for k < 1, a fraction outside (0, 1); when used, for k > d.

    Example:
        >>> TopK(2).compress(torch.tensor([1.0, -3.0, 0.5, 2.0])).dense()
        tensor([ 0., -3.,  0.,  2.])
    """

    k: float

    def __post_init__(self) -> None:
        """Check k."""
        check_k(self.k)

    def kept(self, d: int) -> int:
        """The count for this d."""
        return resolve_k(self.k, d)

    def select(self, x: Tensor, draw: Stream) -> Selection:  # noqa: ARG002
        """The k largest magnitudes."""
        return Selection(top_k_positions(x, self.kept(x.shape[-1])))

    def cuts(self, group: GroupFormat) -> Cuts:
        """Every segment whole."""
        return group.made_once(("cuts", self), lambda: Cuts.of(group.starts, group.numels, group.kept))

    def projection(self, d: int) -> Constants:
        """Table 3, row (d)."""
        q = self.kept(d) / d
        return Constants(alpha=q, beta=1.0, gamma=q, delta=d / self.kept(d))

    def constants(self, d: int) -> Constants:
        """B1(k/d, 1), B2(k/d, 1), B3(d/k)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """k positions and numbers."""
        return SegmentFormat(d, self.kept(d), Kind(dtype, listed=True))


@dataclass(frozen=True)
class RandK(Sparsifier):
    """Keeps k coordinates drawn uniformly without replacement, times d/k: unbiased, U(d/k).

    "On Biased Compression", Section 2.2 (a). Unscaled (``unbiased=False``, which is what
    :meth:`contractive` returns) it is a biased random sparsification with q = k/d (b).

    Args:
        k: a count or a fraction, as for :class:`TopK`.
        unbiased: whether the kept coordinates are multiplied by d/k.
        shared: whether all nodes keep the same coordinates in a round.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> kept = RandK(2).compress(x, torch.Generator().manual_seed(0)).dense()
        >>> int((kept != 0).sum()), float((kept / x).max())
        (2, 2.0)
    """

    k: float
    unbiased: bool = True
    shared: bool = False

    random = True

    def __post_init__(self) -> None:
        """Check k."""
        check_k(self.k)

    def kept(self, d: int) -> int:
        """The count for this d."""
        return resolve_k(self.k, d)

    def factor(self, d: int) -> float:
        """d/k, or 1 without the scaling."""
        return d / self.kept(d) if self.unbiased else 1.0

    def select(self, x: Tensor, draw: Stream) -> Selection:
        """The first k images of a permutation keyed by the draw."""
        d = x.shape[-1]
        place = draw.shared() if self.shared else draw
        positions = place.permuted(d, self.kept(d), x.device).sort(dim=-1).values
        origin = place.origin(x.device).expand(*x.shape[:-1], -1)
        return Selection(positions.expand(*x.shape[:-1], -1), seeded=True, origin=origin)

    def projection(self, d: int) -> Constants:
        """Table 3, row (b), with q = k/d."""
        q = self.kept(d) / d
        return Constants(alpha=q, beta=1.0, gamma=q, delta=d / self.kept(d))

    def constants(self, d: int) -> Constants:
        """U(d/k); unscaled B1(k/d, 1), B2(k/d, 1), B3(d/k)."""
        return unbiased(d / self.kept(d)) if self.unbiased else self.projection(d)

    def contractive(self) -> Compressor:
        """The same selection without the factor d/k, so that kept coordinates stay exact."""
        return RandK(self.k, unbiased=False, shared=self.shared)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """k numbers, and the seed of their positions or, where that is smaller, the positions."""
        k = self.kept(d)
        return SegmentFormat(d, k, Kind(dtype, listed=True, seeded=True, origin=True), factor=self.factor(d))


@dataclass(frozen=True)
class RandomSparsification(Sparsifier):
    """Keeps coordinate i with probability p_i, independently and unscaled: biased, q = min p_i.

    "On Biased Compression", Section 2.2 (b): B1(q, 1), B2(q, 1), B3(1/q).

    Args:
        p: one probability in (0, 1] for all coordinates, or a sequence of one for each.

    Raises:
        ValueError: for a probability outside (0, 1]; when used, for a wrong number of them.

    Example:
        >>> RandomSparsification([1.0, 0.5]).constants(2).delta
        2.0
    """

    p: float | Sequence[float]

    random = True
    varied = True

    def __post_init__(self) -> None:
        """Check the probabilities and make a sequence hashable."""
        if not isinstance(self.p, (int, float)):
            object.__setattr__(self, "p", tuple(float(value) for value in self.p))
        probabilities = self.p if isinstance(self.p, tuple) else (self.p,)
        bad = [value for value in probabilities if not 0.0 < value <= 1.0]
        if bad or not probabilities:
            raise ValueError(f"probabilities must lie in (0, 1], got {bad or 'none'}")

    def _q(self, d: int) -> float:
        if not isinstance(self.p, tuple):
            return float(self.p)  # type: ignore[arg-type]
        if len(self.p) != d:
            raise ValueError(
                f"{len(self.p)} probabilities for vectors of length {d}; give {d}, or one number"
            )
        return float(min(self.p))

    def kept(self, d: int) -> int:
        """All of them, in the luckiest draw."""
        return d

    def select(self, x: Tensor, draw: Stream) -> Selection:
        """Those whose own uniform number lies below their probability."""
        d = x.shape[-1]
        p = torch.as_tensor(self.p, dtype=torch.float64, device=x.device)
        kept = (draw.uniform(d, Purpose.SELECTION, x.device) < p).expand(x.shape)
        position = torch.arange(d, device=x.device)
        positions = torch.where(kept, position, d).sort(dim=-1).values
        return Selection(positions, count=kept.sum(dim=-1, keepdim=True), seeded=True)

    def projection(self, d: int) -> Constants:
        """Table 3, row (b)."""
        q = self._q(d)
        return Constants(alpha=q, beta=1.0, gamma=q, delta=1.0 / q)

    def constants(self, d: int) -> Constants:
        """B1(q, 1), B2(q, 1), B3(1/q)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """A varying number of positions and numbers."""
        self._q(d)
        return SegmentFormat(d, d, Kind(dtype, listed=True, counted=True, seeded=True))


@dataclass(frozen=True)
class AdaptiveRandom(Sparsifier):
    """Keeps one coordinate, coordinate i with probability |x_i| / |x|_1, unscaled: biased.

    "On Biased Compression", Section 2.2 (c): B1(1/d, 1), B2(1/d, 1), B3(d). Exactly,
    E|C(x)|^2 = <E C(x), x> = |x|_3^3 / |x|_1.

    Example:
        >>> x = torch.tensor([0.0, 0.0, -7.0])
        >>> AdaptiveRandom().compress(x, torch.Generator().manual_seed(0)).dense()
        tensor([ 0.,  0., -7.])
    """

    random = True

    def kept(self, d: int) -> int:  # noqa: ARG002
        """One."""
        return 1

    def select(self, x: Tensor, draw: Stream) -> Selection:
        """The first coordinate at which the prefix sum of magnitudes passes a random level."""
        d = x.shape[-1]
        magnitude = x.abs().to(torch.float64)
        # A power of two per row keeps the sum of huge magnitudes finite and that of tiny ones exact.
        _, exponent = torch.frexp(magnitude.amax(dim=-1, keepdim=True))
        magnitude = shifted(magnitude, -exponent)
        prefix = canonical_prefix_sums(magnitude)
        level = draw.coin(Purpose.SELECTION, x.device).unsqueeze(-1) * prefix[..., -1:]
        position = torch.arange(d, device=x.device)
        passed = (prefix > level) & (magnitude > 0)
        first = torch.where(passed, position, d).amin(dim=-1, keepdim=True)
        # Rounding may leave no prefix above the level; then the last magnitude that is not 0 is meant.
        last = torch.where(magnitude > 0, position, 0).amax(dim=-1, keepdim=True)
        return Selection(torch.where(first < d, first, last))

    def projection(self, d: int) -> Constants:
        """Table 3, row (c)."""
        return Constants(alpha=1.0 / d, beta=1.0, gamma=1.0 / d, delta=float(d))

    def constants(self, d: int) -> Constants:
        """B1(1/d, 1), B2(1/d, 1), B3(d)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """One position and number."""
        return SegmentFormat(d, 1, Kind(dtype, listed=True))


@dataclass(frozen=True)
class Identity(Compressor):
    """Sends everything: every class with constant 1.

    Example:
        >>> Identity().compress(torch.tensor([1.0, 2.0])).dense()
        tensor([1., 2.])
    """

    def encode(self, x: Tensor, draw: Stream) -> Message:  # noqa: ARG002
        """x itself; a copy, because memories change in place while messages wait."""
        return Message((Part(d=x.shape[-1], values=x.clone(), dtype=x.dtype),))

    def compress_together(self, job: Job) -> Compressed | None:
        """All segments in one call."""
        vectors = job.vectors()
        if vectors is None or job.update == "drain" or job.format.kind.dtype != torch.float32:
            return None
        values, finite = cast_segments(
            SegmentedInput.of(vectors[0], job.format.table, vectors[1]), torch.float32
        )
        require_all_finite(finite)
        return Compressed(Group(job.format, values))

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """B1(1, 1), B2(1, 1), B3(1), U(1)."""
        return unbiased(1.0)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number."""
        return SegmentFormat(d, d, Kind(dtype))
