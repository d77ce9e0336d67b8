"""Top-k: the coordinates of largest magnitude, of a whole segment or of each block of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._constants import Constants
from laconic.compressors._job import Job
from laconic.compressors._joint_selection import Selected, select_largest
from laconic.compressors._selection import Selection, check_k, resolve_k
from laconic.compressors._sparsifier import Sparsifier
from laconic.formats import GroupFormat, Kind, SegmentFormat
from laconic.kernels import SelectionTable, Stream, top_k_positions


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

    def select_together(self, job: Job, *, moves: bool = False) -> Selected | None:
        """The largest magnitudes of every segment."""
        one = job.format
        cuts = one.made_once(("cuts", self), lambda: SelectionTable.of(one.starts, one.numels, one.kept))
        return select_largest(job, cuts, moves=moves)

    def projection(self, d: int) -> Constants:
        """Table 3, row (d)."""
        q = self.kept(d) / d
        return Constants(alpha=q, beta=1.0, gamma=q, delta=d / self.kept(d))

    def constants(self, d: int) -> Constants:
        """B1(k/d, 1), B2(k/d, 1), B3(d/k)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """k positions and numbers."""
        return SegmentFormat(d, self.kept(d), Kind(dtype, has_positions=True))


@dataclass(frozen=True)
class BlockTopK(Sparsifier):
    """Keeps the k coordinates of largest magnitude in each block of consecutive ones.

    Selection needs no pass over the whole vector, and a position takes log2(block) bits. With b blocks of
    n_j coordinates of which k_j are kept, |C(x) - x|^2 <= sum_j (1 - k_j/n_j) |x_j|^2, so with
    q = min_j k_j/n_j: B1(q, 1), B2(q, 1), B3(1/q), attained by a vector that is constant on the block with
    the smallest share and 0 elsewhere.

    Args:
        k: kept of each block: a count, or a fraction in (0, 1) of it, ``max(1, ceil(k n_j - 1e-9))``. The
            last block may be shorter than k; then it is kept whole.
        block: coordinates a block.

    Raises:
        ValueError: for k < 1, k > block, a fraction outside (0, 1), or a block < 1.

    Example:
        >>> BlockTopK(1, block=2).compress(torch.tensor([1.0, -3.0, 0.5, 2.0, 0.1])).dense()
        tensor([ 0.0000, -3.0000,  0.0000,  2.0000,  0.1000])
    """

    k: float
    block: int

    def __post_init__(self) -> None:
        """Check k and block."""
        check_k(self.k)
        if isinstance(self.block, bool) or not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block must be an int >= 1, got {self.block!r}")
        if self.k > self.block:
            raise ValueError(f"cannot keep k = {self.k} of a block of {self.block} coordinates")

    def kept_of(self, n: int) -> int:
        """How many are kept of a block of n."""
        return min(self.k, n) if isinstance(self.k, int) else resolve_k(self.k, n)

    def cells(self, d: int) -> tuple[int, int]:
        """Length and count of the blocks."""
        length = min(self.block, d)
        return length, self.kept_of(length)

    def kept(self, d: int) -> int:
        """The counts of all blocks together."""
        length, count = self.cells(d)
        rest = d % length
        return d // length * count + (self.kept_of(rest) if rest else 0)

    def select(self, x: Tensor, draw: Stream) -> Selection:  # noqa: ARG002
        """The largest magnitudes of each block."""
        d = x.shape[-1]
        length, count = self.cells(d)
        whole = d // length * length
        blocks = x[..., :whole].reshape(*x.shape[:-1], -1, length)
        starts = torch.arange(0, whole, length, device=x.device).unsqueeze(-1)
        positions = (top_k_positions(blocks, count) + starts).flatten(-2)
        if whole < d:
            last = top_k_positions(x[..., whole:], self.kept_of(d - whole)) + whole
            positions = torch.cat((positions, last), dim=-1)
        return Selection(positions, cells=(length, count))

    def select_together(self, job: Job, *, moves: bool = False) -> Selected | None:
        """The largest magnitudes of each block of every segment."""
        cuts = job.format.made_once(("cuts", self), lambda: _block_table(self, job.format))
        return select_largest(job, cuts, moves=moves)

    def projection(self, d: int) -> Constants:
        """From the block with the smallest share."""
        length, count = self.cells(d)
        share, rest = count / length, d % length
        if rest:
            share = min(share, self.kept_of(rest) / rest)
        return Constants(alpha=share, beta=1.0, gamma=share, delta=1.0 / share)

    def constants(self, d: int) -> Constants:
        """B1(q, 1), B2(q, 1), B3(1/q)."""
        return self.projection(d)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """As many positions in each block."""
        return SegmentFormat(d, self.kept(d), Kind(dtype, has_positions=True), cells=self.cells(d))


def _block_table(top: BlockTopK, group: GroupFormat) -> SelectionTable:
    cells = [top.cells(d) for d in group.numels]
    rests = [d % length for d, (length, _) in zip(group.numels, cells, strict=True)]
    return SelectionTable.of(
        group.starts,
        group.numels,
        [count for _, count in cells],
        block=[length for length, _ in cells],
        last=[top.kept_of(rest) if rest else 0 for rest in rests],
    )
