"""The buckets of an exchange, and the memories of segments that no bucket holds."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from laconic.comm._agreement import Fields, Operation, checksum
from laconic.comm.topologies import (
    AllGather,
    BucketContext,
    BucketExchange,
    Dense,
    RemembersAlike,
    SegmentStates,
    Source,
    Topology,
    numel,
)
from laconic.comm.topologies._states import dtype_misfit, held_bytes
from laconic.feedback import Feedback
from laconic.kernels.tables import SegmentedVector

Names = tuple[str, ...]
_log = logging.getLogger("laconic")


@dataclass(frozen=True)
class BucketOperation(Operation):
    """The exchange of a bucket.

    Args:
        found: the bucket, or why there is none on this rank.
    """

    found: BucketExchange | ValueError

    @property
    def bucket(self) -> BucketExchange:
        """The bucket; raises the ValueError where there is none."""
        if isinstance(self.found, ValueError):
            raise self.found
        return self.found


class BucketStates:
    """The exchange of each bucket; where buckets change, memories move with their segments.

    Args:
        whole: the context of all segments in one bucket.
        topology: makes the buckets.
        dtypes: of each segment's numbers, by name; float32 where it has none.
    """

    def __init__(
        self, whole: BucketContext, topology: Topology, dtypes: Mapping[str, torch.dtype] | None
    ) -> None:
        """Start without memories."""
        self._whole = whole
        self._topology = topology
        self._dtypes = dict(dtypes or {})
        self._held: dict[Names, BucketExchange] = {}
        self._numels: dict[Names, list[int]] = {}
        self._unassigned: SegmentStates = {}
        self._restarts = False

    @property
    def feedback(self) -> Feedback:
        """The method."""
        return self._whole.feedback

    def operation(self, names: Names, vector: Source, *, dense: bool, last: bool) -> BucketOperation:
        """The exchange of a bucket, as the ranks have to agree on it."""
        dtype = SegmentedVector.of(vector).like.dtype
        found: BucketExchange | ValueError
        try:
            found = self.dense(names, vector) if dense else self.get(names, vector)
        except ValueError as error:  # to be told to all ranks: the others wait in the collective
            found = error

        def fields() -> Fields:
            own: dict[str, object] = {
                "operation": f"exchange of a {'dense ' if dense else ''}bucket of {len(names)} segments "
                + f"from {names[0]!r} on{', the last' if last else ''}",
                "segments of the bucket": names,
                "dtype": dtype,
                "refusal": str(found) if isinstance(found, ValueError) else "none",
                "feedback": self.feedback,
            }
            if isinstance(found, ValueError) or not isinstance(found, RemembersAlike):
                return own
            shared = found.alike_memories()
            return own | {
                "rounds since the memories are new": shared.pop("round"),
                "memory of the receiver": checksum(shared),
            }

        if isinstance(found, ValueError):
            return BucketOperation(found, False, fields, found)
        steady = not isinstance(found, RemembersAlike) or found.steady
        return BucketOperation((names, dense, last, dtype), steady, fields, found)

    def dense(self, names: Names, vector: Source) -> BucketExchange:
        """A bucket that is averaged whole, past all memories.

        Raises:
            ValueError: for unknown names, or a tensor of another size.
        """
        return Dense().make_bucket(self._sized_context(names, vector))

    def get(self, names: Names, vector: Source) -> BucketExchange:
        """The bucket of these segments, made of their memories where buckets have changed.

        Raises:
            ValueError: for unknown names, a tensor of another size, or memories that do not fit together.
        """
        if names in self._held:
            self._check_lengths(names, vector)
            return self._held[names]
        context = self._checked_context(names, vector)
        for key, bucket in list(self._held.items()):
            if not set(key).isdisjoint(names):
                self._unassigned.update(bucket.state_by_segment())
                del self._held[key]
        made = self._topology.make_bucket(context)
        known = [name for name in names if name in self._unassigned]
        if known and len(known) < len(names):
            missing = next(name for name in names if name not in self._unassigned)
            raise ValueError(f"the memory of {known[0]!r} is known, but not that of {missing!r}")
        if known:
            made.load_by_segment({name: self._unassigned[name] for name in names})
            for name in names:
                del self._unassigned[name]
        self._held[names] = made
        return made

    def _checked_context(self, names: Names, vector: Source) -> BucketContext:
        context = self._sized_context(names, vector)
        loaded = {name: self._unassigned[name] for name in names if name in self._unassigned}
        why = self._misfit(loaded, dict.fromkeys(names, context.like.dtype))
        if why is None:
            return context
        if not self._restarts:
            raise ValueError(why)
        # On all ranks alike, which compare the dtype and the rounds of the memories before they go on.
        for name in loaded:
            del self._unassigned[name]
        if self._whole.collectives.rank == 0:
            _log.warning("the memories of %s start anew: %s", context.what, why)
        return context

    def _sized_context(self, names: Names, vector: Source) -> BucketContext:
        context = self._context(names, SegmentedVector.of(vector).like)
        self._numels[names] = context.layout.numels
        self._check_lengths(names, vector)
        return context

    def _check_lengths(self, names: Names, vector: Source) -> None:
        numels, given = self._numels[names], SegmentedVector.of(vector)
        if given.tensors is None:
            if sum(numels) != numel(given):
                raise ValueError(f"the bucket of {names[0]!r} has {sum(numels)} elements, got {numel(given)}")
            return
        found = [tensor.numel() for tensor in given.tensors]
        if len(found) != len(numels):
            raise ValueError(
                f"the bucket of {names[0]!r} has {len(numels)} segments, got {len(found)} tensors"
            )
        for name, wanted, number in zip(names, numels, found, strict=True):
            if wanted != number:
                raise ValueError(f"the segment {name!r} has {wanted} elements, got a tensor of {number}")

    def _context(self, names: Names, like: torch.Tensor) -> BucketContext:
        return replace(self._whole, layout=self._whole.layout.select(names), like=like.new_empty(0))

    def switch(self, feedback: Feedback) -> None:
        """Go on with the same memories and another compressor.

        Raises:
            ValueError: where the method or its settings beside the compressor differ, or the compressor
                does not suit them.
        """
        if feedback.name != self.feedback.name:
            raise ValueError(
                f"the memories of {self.feedback.name} mean nothing to {feedback.name}: change only the "
                "compressor"
            )
        feedback.sender(self._whole.layout, seed=self._whole.seed)
        self.load(self.memories(), restarts=self._restarts)
        self._whole = replace(self._whole, feedback=feedback)

    def memories(self) -> SegmentStates:
        """What is remembered of every segment, as a copy: zeros of those that have not been sent yet."""
        found: SegmentStates = {}
        for bucket in self._held.values():
            found.update(bucket.state_by_segment())
        found |= self._unassigned
        fresh: dict[torch.dtype, list[str]] = {}
        for segment in self._whole.layout.segments:
            if segment.name not in found:
                dtype = self._dtypes.get(segment.name, torch.float32)
                fresh.setdefault(dtype, []).append(segment.name)
        for dtype, names in fresh.items():
            context = self._context(tuple(names), torch.empty(0, dtype=dtype, device="cpu"))
            found |= self._topology.make_bucket(context).state_by_segment()
        return {segment.name: found[segment.name] for segment in self._whole.layout.segments}

    def held_bytes(self) -> dict[str, int]:
        """Bytes that the buckets say they hold, by kind."""
        return held_bytes(list(self._held.values()))

    def misfit(self, memories: SegmentStates) -> str | None:
        """Why memories are not those of the dtypes that are known already; None where they may be."""
        return self._misfit(memories, self._dtypes)

    def _misfit(self, memories: SegmentStates, dtypes: Mapping[str, torch.dtype]) -> str | None:
        # Another topology may remember numbers of any dtype.
        return dtype_misfit(memories, dtypes) if isinstance(self._topology, AllGather) else None

    def load(self, memories: SegmentStates, *, restarts: bool = False) -> None:
        """Remember this, and nothing else.

        Args:
            memories: by segment; none of any where all start anew.
            restarts: whether those that turn out to be of another dtype than what is sent start anew; else
                they are refused then.
        """
        self._held = {}
        self._unassigned = dict(memories)
        self._restarts = restarts
