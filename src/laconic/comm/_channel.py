"""One bucket's exchange: this rank's sender, the receiver of all ranks' messages, and the bytes between."""

from typing import Any

import torch
from torch import Tensor

from laconic.comm._error import unsaid
from laconic.comm._errors import ExchangeError
from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.comm._write import write
from laconic.feedback import Feedback, NotFiniteError
from laconic.layout import Layout, Segment
from laconic.messages import Message, accumulation_dtype
from laconic.wire import Schema, WireError, pack_into, pack_non_finite, packed_size, read_frame, unpack

State = dict[str, Any]


class Channel:
    """The segments of one bucket, which are sent together in one message.

    Args:
        layout: the bucket's segments; each keeps its number in the whole layout, so that nothing computed
            depends on which segments share a bucket.
        like: an empty tensor of the dtype and device of the vectors.
    """

    def __init__(
        self, layout: Layout, feedback: Feedback, group: Group, seed: int, counter: Counter, like: Tensor
    ) -> None:
        """Make sender and receiver, and learn from two messages of zeros what messages look like."""
        self.layout = layout
        self._feedback = feedback
        self._group = group
        self._counter = counter
        self.sender = feedback.sender(layout, node=group.rank, seed=seed)
        self.receiver = feedback.receiver(layout, group.size)
        self._seen: tuple[Message, Tensor] | None = None
        self._scratch: Tensor | None = None
        probe = feedback.sender(layout, node=group.rank, seed=seed)
        zeros = torch.zeros(layout.d, dtype=accumulation_dtype(like.dtype), device=like.device)
        first, later = probe.send(zeros), probe.send(zeros)
        self._schemas = Schema.like(first), Schema.like(later)
        names = [segment.name for segment in layout.segments]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self.what = f"the bucket of {names[0]!r}{more}"

    def run(self, source: Tensor, out: Tensor, scale: float) -> bool:
        """Send this rank's vector and write the estimate of the mean; whether every rank's was finite.

        The memories stay as they are until :meth:`commit`.

        Args:
            source: (d,), any floating-point dtype; may be ``out``.
            out: (d,), where the estimate is written, times ``scale``.
            scale: what source is divided by before it meets any memory.
        """
        counter = self._counter
        round_ = self.sender.round
        schema = self._schemas[min(round_, 1)]
        dense = round_ > 0 and self._feedback.plan(round_).dense
        with counter.phase("select"):
            message = self._message(source, scale)
        with counter.phase("pack"):
            frame = self._pack(message, schema, dense, round_)
        with counter.phase("communicate"):
            gather = self._group.all_gather if schema.fixed else self._group.all_gather_varied
            frames = gather(frame, f"round {round_} of {self.what}")
        self._count(frame, frames)
        with counter.phase("unpack"):
            messages = self._unpack(frames, schema, round_)
        if messages is None:
            return False
        with counter.phase("apply"):
            return self._apply([m.to(source.device) for m in messages], out, scale)

    def _message(self, source: Tensor, scale: float) -> Message | None:
        if scale != 1.0:
            source = source.to(accumulation_dtype(source.dtype)) / scale
        try:
            message = self.sender.stage(source)
        except NotFiniteError:
            # To be told to all ranks, not raised on one: the others wait in the collective.
            return None
        if self._counter.measuring:
            self._seen = message, source.clone()
        return message

    def _pack(self, message: Message | None, schema: Schema, dense: bool, round_: int) -> Tensor:
        if schema.fixed:
            size = schema.dense_nbytes if dense else schema.max_nbytes
        else:
            size = 20 if message is None else packed_size(message, expect=schema)
        frame = torch.zeros(size, dtype=torch.uint8)
        if message is None:
            pack_non_finite(frame, self.layout, round_)
        else:
            pack_into(message, frame, expect=schema)
        return frame

    def _unpack(self, frames: list[Tensor], schema: Schema, round_: int) -> list[Message] | None:
        messages: list[Message] = []
        finite = True
        for rank, frame in enumerate(frames):
            try:
                if read_frame(frame).non_finite:
                    finite = False
                else:
                    messages.append(unpack(frame, expect=schema, round=round_))
            except WireError as error:
                raise ExchangeError(f"the message of rank {rank} for {self.what}: {error}") from error
        return messages if finite else None

    def _apply(self, messages: list[Message], out: Tensor, scale: float) -> bool:
        direct = scale == 1.0 and out.dtype == accumulation_dtype(out.dtype) and out.is_contiguous()
        if direct:
            self.receiver.stage(messages, out=out)
            return True
        if self._scratch is None:
            self._scratch = torch.empty(out.shape, dtype=accumulation_dtype(out.dtype), device=out.device)
        return write(self.receiver.stage(messages, out=self._scratch), out, scale)

    def _count(self, frame: Tensor, frames: list[Tensor]) -> None:
        others = len(frames) - 1
        self._counter.bytes_sent += others * frame.numel()
        self._counter.bytes_received += sum(f.numel() for f in frames) - frame.numel()
        if others:
            self._counter.bytes_bf16 += 2 * others * 2 * self.layout.d // len(frames)

    def commit(self) -> None:
        """Let the memories move on."""
        with self._counter.phase("apply"):
            self.sender.commit()
            self.receiver.commit()
        if self._seen is not None:
            self._counter.add_error(*unsaid(self.sender.state_dict(), *self._seen))
            self._seen = None

    def roll_back(self) -> None:
        """Forget the round."""
        self.sender.roll_back()
        self.receiver.roll_back()
        self._seen = None

    def state_by_segment(self) -> dict[str, dict[str, State]]:
        """What sender and receiver remember, by segment name."""
        ends = {"sender": self.sender.state_dict(), "receiver": self.receiver.state_dict()}
        return {
            segment.name: {end: _cut(state, segment) for end, state in ends.items()}
            for segment in self.layout.segments
        }

    def load_by_segment(self, states: dict[str, dict[str, State]]) -> None:
        """Take over what was remembered of each segment, wherever it was.

        Raises:
            ValueError: where segments are of different rounds, or do not fit.
        """
        for end, holder in (("sender", self.sender), ("receiver", self.receiver)):
            each = [states[segment.name][end] for segment in self.layout.segments]
            holder.load_state_dict(_joined(each, self.layout))


def _cut(state: State, segment: Segment) -> State:
    # Every tensor that an end remembers has the layout's coordinates as its last dimension.
    return {
        key: value[..., segment.offset : segment.end].clone() if isinstance(value, Tensor) else value
        for key, value in state.items()
        if key != "layout"
    }


def _joined(states: list[State], layout: Layout) -> State:
    joined: State = {"layout": layout.digest}
    for key, first in states[0].items():
        values = [state[key] for state in states]
        if isinstance(first, Tensor):
            joined[key] = torch.cat(values, dim=-1)
        elif any(value != first for value in values):
            raise ValueError(
                f"the segments of {layout.segments[0].name!r} and others are at different {key}s "
                f"({sorted(set(map(str, values)))}); resync() starts them anew"
            )
        else:
            joined[key] = first
    return joined
