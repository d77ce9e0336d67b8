"""The all-gather topology: every rank sends one message, and receives those of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from laconic.comm.topologies._frames import FrameReceiver, FrameSender
from laconic.comm.topologies._protocol import BucketContext, BucketExchange, SegmentStates
from laconic.comm.topologies._states import Ends, cut_by_segment, held_bytes, load_by_segment
from laconic.comm.topologies._vectors import Destination, Source
from laconic.wire import row_kernels


@dataclass(frozen=True)
class AllGather:
    """Every rank's message to every rank: n - 1 messages each way, and the same estimate on all."""

    name = "all-gather"

    def make_bucket(self, context: BucketContext) -> BucketExchange:
        """A sender, and a receiver of n nodes."""
        return _AllGatherBucket(context)


class _AllGatherBucket:
    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._sender = FrameSender(context)
        self._receiver = FrameReceiver(context, context.collectives.size)
        self._ends: Ends = {"sender": self._sender.sender, "receiver": self._receiver.receiver}

    def stage(self, source: Source, out: Destination, scale: float) -> bool:
        collectives = self._context.collectives
        expected, round_ = self._sender.format, self._sender.sender.round
        what = f"round {round_} of {self._context.what}"
        if collectives.on_device and (kernels := row_kernels(expected, self._context.like)) is not None:
            row = self._sender.stage_row(kernels, source, scale)
            with self._context.counter.phase("communicate"):
                seen = collectives.all_gather_rows(row, what, partial(self._receiver.unpack_rows, kernels))
            return self._receiver.stage_rows(seen, out, scale)
        frame, message = self._sender.stage(source, scale)
        with self._context.counter.phase("communicate"):
            gather = collectives.all_gather if expected.fixed else collectives.all_gather_varied
            frames = gather(frame, what)
        # What unpacking would make of this rank's frame is its message, bit for bit.
        known = {} if message is None or expected.adaptive else {collectives.rank: message}
        return self._receiver.stage(frames, out, scale, known)

    @property
    def steady(self) -> bool:
        return self._sender.sender.round > 0 or self._context.format(0) == self._context.format(1)

    def alike_memories(self) -> dict[str, Any]:
        return self._receiver.receiver.state_dict()

    def commit(self) -> None:
        with self._context.counter.phase("apply"):
            self._sender.commit()
            self._receiver.receiver.commit()

    def roll_back(self) -> None:
        self._sender.roll_back()
        self._receiver.receiver.roll_back()

    def held_bytes(self) -> dict[str, int]:
        held = held_bytes(getattr(end, "memories", None) for end in self._ends.values())
        return {**held, "scratch": held["scratch"] + self._sender.frame_nbytes}

    def state_by_segment(self) -> SegmentStates:
        return cut_by_segment(self._context.layout, self._ends)

    def load_by_segment(self, states: Mapping[str, dict[str, Any]]) -> None:
        load_by_segment(self._context.layout, self._ends, states)
