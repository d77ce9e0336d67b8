"""The interface of topologies: the exchange of one bucket's messages between ranks.

A topology has one method, which makes the exchange of one bucket; :class:`laconic.Exchange` knows no more of
it than :class:`BucketExchange`. All-gather and dense are in their modules. Two that are not written yet fit
as follows.

*Sharded*: an all-to-all of compressed shards, then an all-gather of a second compressed stage, so that what a
rank sends does not grow with the number of ranks. Rank r owns piece r of every segment, whatever the bucket,
so that memories stay where they are when buckets change. Its ``stage`` is::

    frames = [sender.stage(piece, scale)[0] for sender, piece in zip(self.senders, pieces(source))]
    arrived = collectives.all_to_all(frames, sizes, what)      # n frames of this rank's own pieces
    if not self.receiver.stage(arrived, mine):                 # a FrameReceiver of n nodes
        mine.fill_(nan)                                        # which the next frame tells to all
    frame, _ = self.second_sender.stage(mine)
    frames = collectives.all_gather(frame, what)
    return all([end.stage([frame], piece, scale) for end, frame, piece in zip(self.second_receivers, ...)])

with contexts of the pieces by ``dataclasses.replace(context, layout=..., feedback=second)``. What it
remembers of a segment on rank r: the senders' memories of all its pieces, joined; the receiver's and the
second sender's of piece r alone; the second receivers' of all.

*Joint*: compressors that agree while they compress, such as low rank (PowerSGD): ``approximate(x, memory,
mean) -> approximation`` averages over ranks as often as it likes. Its ``stage`` is::

    x = unscaled(source, scale)
    approximation, after = approximate(x, self.memory, lambda tensor: collectives.mean(tensor, what))
    self.pending = after                                       # the memory, once the step is committed
    return finite(approximation) and write_scaled(approximation, out, scale)

Every rank has the same approximation, so all see alike whether it is finite. Segments that do not suit it go
to the bucket of another topology: ``AllGather().make_bucket(replace(context, layout=rest))``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from laconic.comm._stats import Counter
from laconic.comm.topologies._vectors import Vector
from laconic.comm.transport.collectives import Collectives
from laconic.feedback import Feedback
from laconic.formats import MessageFormat, accumulation_dtype
from laconic.layout import Layout

SegmentStates = dict[str, dict[str, Any]]
"""State of senders and receivers: by name of the segment, then by name of the state."""


@dataclass(frozen=True)
class BucketContext:
    """What a topology is given to make the exchange of a bucket.

    Args:
        layout: the bucket's segments; each keeps its number in the whole layout, so that nothing computed
            depends on which segments share a bucket.
        feedback: the method.
        like: a tensor of the dtype and device of the vectors.
        seed: of all draws.
        collectives: between the ranks.
        counter: of times and errors.
        adaptive: whether positions travel in blocks that adapt to their density.
    """

    layout: Layout
    feedback: Feedback
    like: Tensor
    seed: int
    collectives: Collectives
    counter: Counter
    adaptive: bool = False

    @cached_property
    def what(self) -> str:
        """The bucket, for errors."""
        first, *others = self.layout.segments
        return f"the bucket of {first.name!r}" + (f" and {len(others)} more" if others else "")

    def format(self, round: int) -> MessageFormat:
        """The format of a round's messages."""
        return self._formats[min(round, 1)]

    @cached_property
    def _formats(self) -> list[MessageFormat]:
        # What travels in round 0 may differ from all later rounds.
        dtype = accumulation_dtype(self.like.dtype)
        found = (self.feedback.format(self.layout, dtype, round) for round in range(2))
        return [one.adapted() if self.adaptive else one for one in found]


class BucketExchange(Protocol):
    """The exchange of one bucket: a rank's vector in, the estimate of the mean out, and memories."""

    def stage(self, source: Vector, out: Vector, scale: float) -> bool:
        """Exchange a vector and write the estimate; whether it is finite, alike on all ranks.

        The memories stay as they are until :meth:`commit`. Where it is not finite, every collective has
        still been made, ``out`` may hold anything, and :meth:`roll_back` follows.

        Args:
            source: this rank's numbers of any floating-point dtype; may be ``out``.
            out: where the estimate is written, times ``scale``.
            scale: what source is divided by before it meets any memory.
        """

    def commit(self) -> None:
        """Let the memories move on, after all buckets of the step were finite."""

    def roll_back(self) -> None:
        """Forget the round: the memories are as they were, bit for bit. Also called where none is staged."""

    def state_by_segment(self) -> SegmentStates:
        """What this rank remembers of each segment, as a copy; it does not depend on the bucket's others."""

    def load_by_segment(self, states: Mapping[str, dict[str, Any]]) -> None:
        """Take over what this rank remembered of each segment, in whatever bucket it was.

        Raises:
            ValueError: where the states do not fit together.
        """


@runtime_checkable
class RemembersAlike(Protocol):
    """What a :class:`BucketExchange` has besides where it remembers what all ranks must have alike.

    The ranks compare it before the bucket's first rounds, and after a load or another change.
    """

    @property
    def steady(self) -> bool:
        """Whether the next round's collectives are as long as those of all rounds after it."""

    def alike_memories(self) -> dict[str, Any]:
        """The "round", and tensors and numbers by name."""


class Topology(Protocol):
    """Makes the exchange of a bucket."""

    @property
    def name(self) -> str:
        """Stands in checkpoints, whose memories mean nothing to another topology."""

    def make_bucket(self, context: BucketContext) -> BucketExchange:
        """The exchange of a bucket, with memories of zeros; makes no collective.

        Raises:
            ValueError: where the settings do not fit the segments.
        """
