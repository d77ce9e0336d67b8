"""Sparsifiers that draw their coordinates at random: Rand-k, independent choices, one by its magnitude."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor, unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._job import Job
from laconic.compressors._joint_selection import Selected, select_at
from laconic.compressors._not_finite import require_finite
from laconic.compressors._selection import Selection, check_k, resolve_k
from laconic.compressors._sparsifier import Sparsifier
from laconic.formats import Kind, SegmentFormat
from laconic.kernels import (
    Purpose,
    Stream,
    canonical_prefix_sums,
    chosen_segments,
    permuted_segments,
    shifted,
)


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
    moves_memory = False

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

    def select_together(self, job: Job, *, moves: bool = False) -> Selected:  # noqa: ARG002
        """The same of every segment."""
        place, device = job.draw.shared() if self.shared else job.draw, job.target.like.device
        positions = permuted_segments(place, job.format.table, device)
        return select_at(job, positions, origin=place.origin(device)[..., :3])

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
        return SegmentFormat(
            d, k, Kind(dtype, has_positions=True, seeded=True, sends_seed=True), factor=self.factor(d)
        )


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
    moves_memory = False

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

    def select_together(self, job: Job, *, moves: bool = False) -> Selected:  # noqa: ARG002
        """The same of every segment."""
        p: float | tuple[float, ...] = self.p  # type: ignore[assignment]
        return select_at(job, *chosen_segments(job.draw, p, job.format.table, job.target.like.device))

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
        return SegmentFormat(d, d, Kind(dtype, has_positions=True, has_counts=True, seeded=True))


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
    moves_memory = False

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

    def select_together(self, job: Job, *, moves: bool = False) -> Selected | None:  # noqa: ARG002
        """The same of every segment."""
        if job.format.segments == 1:
            return None
        x, device = job.numbers(), job.target.like.device
        require_finite(x)
        table, shape = job.format.table, (*x.shape[:-1], job.format.segments)
        numels, numbers = (
            torch.from_numpy(each).to(device) for each in (table.numel_array, table.number_array)
        )
        starts = numels.cumsum(-1) - numels
        segment = torch.arange(len(numels), device=device).repeat_interleave(numels)
        position = torch.arange(x.shape[-1], device=device) - starts[segment]
        owner = segment.expand(x.shape)
        magnitude = x.abs().to(torch.float64)
        largest = magnitude.new_zeros(shape).scatter_reduce(-1, owner, magnitude, "amax")
        _, exponent = torch.frexp(largest)
        magnitude = shifted(magnitude, -exponent[..., segment])
        prefix = canonical_prefix_sums(magnitude, position)
        level = job.draw.coins(numbers, Purpose.SELECTION) * prefix[..., starts + numels - 1]
        passed = (prefix > level[..., segment]) & (magnitude > 0)
        ends = numels.expand(shape)
        first = ends.scatter_reduce(-1, owner, torch.where(passed, position, numels[segment]), "amin")
        last = torch.zeros_like(ends).scatter_reduce(
            -1, owner, torch.where(magnitude > 0, position, 0), "amax"
        )
        positions = torch.where(first < ends, first, last)
        return Selected(positions, x.gather(-1, positions + starts))

    def projection(self, d: int) -> Constants:
        """Table 3, row (c)."""
        return Constants(alpha=1.0 / d, beta=1.0, gamma=1.0 / d, delta=float(d))

    def constants(self, d: int) -> Constants:
        """B1(1/d, 1), B2(1/d, 1), B3(d)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """One position and number."""
        return SegmentFormat(d, 1, Kind(dtype, has_positions=True))
