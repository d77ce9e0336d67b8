"""The exchange of one bucket: this rank's sender, the receiver of all messages, and the bytes between."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.comm._errors import ExchangeError
from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.feedback import Feedback, NotFiniteError
from laconic.formats import MessageFormat, accumulation_dtype
from laconic.formats.sizes import FRAME_BYTES
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout, Segment
from laconic.messages import Message
from laconic.wire import WireError, pack_into, pack_non_finite, packed_size, read_frame, unpack

State = dict[str, Any]
Vector = Tensor | Sequence[Tensor]
"""A flat vector (d,), or a tensor for each segment."""


class Bucket:
    """The segments that are sent together in one message.

    Args:
        layout: the bucket's segments; each keeps its number in the whole layout, so that nothing computed
            depends on which segments share a bucket.
        feedback: the method.
        group: the ranks.
        seed: of all draws.
        counter: of times and bytes.
        like: a tensor of the dtype and device of the vectors.
        adaptive: whether positions travel in blocks that adapt to their density.
    """

    def __init__(
        self,
        layout: Layout,
        feedback: Feedback,
        group: Group,
        seed: int,
        counter: Counter,
        like: Tensor,
        *,
        adaptive: bool = False,
    ) -> None:
        """Make sender and receiver, and the formats of their messages."""
        self.layout = layout
        self._group = group
        self._counter = counter
        self.sender = feedback.sender(layout, node=group.rank, seed=seed, dtype=like.dtype)
        self.receiver = feedback.receiver(layout, group.size, dtype=like.dtype)
        self._seen: tuple[Message, Tensor] | None = None
        self._scratch: Tensor | None = None
        self._frame = torch.zeros(0, dtype=torch.uint8)
        dtype = accumulation_dtype(like.dtype)
        formats = (feedback.format(layout, dtype, round) for round in range(2))
        self._formats: list[MessageFormat] = [one.adapted() if adaptive else one for one in formats]
        names = [segment.name for segment in layout.segments]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self.what = f"the bucket of {names[0]!r}{more}"

    def run(self, source: Vector, out: Vector, scale: float) -> bool:
        """Send this rank's vector and write the estimate of the mean; whether every rank's was finite.

        The memories stay as they are until :meth:`commit`.

        Args:
            source: any floating-point dtype; may be ``out``.
            out: where the estimate is written, times ``scale``.
            scale: what source is divided by before it meets any memory.
        """
        counter = self._counter
        round_ = self.sender.round
        # What travels in round 0 may differ from all later rounds.
        expected = self._formats[min(round_, 1)]
        with counter.phase("select"):
            message = self._message(source, scale)
        with counter.phase("pack"):
            frame = self._pack(message, expected, round_)
        with counter.phase("communicate"):
            gather = self._group.all_gather if expected.fixed else self._group.all_gather_varied
            frames = gather(frame, f"round {round_} of {self.what}")
        self._count(frame, frames)
        with counter.phase("unpack"):
            messages = self._unpack(frames, message, expected, round_)
        if messages is None:
            return False
        with counter.phase("apply"):
            device = SegmentedVector.of(out).like.device
            return self._apply([m.to(device) for m in messages], out, scale)

    def _message(self, source: Vector, scale: float) -> Message | None:
        if scale != 1.0:
            flat = SegmentedVector.of(source).flattened()
            source = flat.to(accumulation_dtype(flat.dtype)) / scale
        try:
            message = self.sender.stage(source)
        except NotFiniteError:
            # To be told to all ranks, not raised on one: the others wait in the collective.
            return None
        if self._counter.measuring:
            self._seen = message, SegmentedVector.of(source).flattened().clone()
        return message

    def _pack(self, message: Message | None, expected: MessageFormat, round_: int) -> Tensor:
        if expected.fixed:
            size = expected.max_nbytes
        else:
            size = FRAME_BYTES if message is None else packed_size(message, expect=expected)
        if self._frame.numel() != size:
            self._frame = torch.zeros(size, dtype=torch.uint8)
        if message is None:
            pack_non_finite(self._frame, expected.digest, round_)
        else:
            pack_into(message, self._frame, expect=expected)
        return self._frame

    def _unpack(
        self, frames: list[Tensor], own: Message | None, expected: MessageFormat, round_: int
    ) -> list[Message] | None:
        messages: list[Message] = []
        finite = True
        for rank, buffer in enumerate(frames):
            if rank == self._group.rank and not expected.adaptive:
                # What unpacking would make of this rank's frame is its message, bit for bit.
                finite = finite and own is not None
                messages.extend([] if own is None else [own])
                continue
            try:
                frame = read_frame(buffer)
                if frame.non_finite:
                    finite = False
                else:
                    message = unpack(buffer[: frame.length], frame=frame, expect=expected, round=round_)
                    messages.append(message)
            except WireError as error:
                raise ExchangeError(f"the message of rank {rank} for {self.what}: {error}") from error
        return messages if finite else None

    def _apply(self, messages: list[Message], out: Vector, scale: float) -> bool:
        goal = SegmentedVector.of(out)
        if scale == 1.0 and goal.like.dtype != torch.float16:
            self.receiver.stage(messages, out=out)
            return True
        if self._scratch is None:
            dtype = accumulation_dtype(goal.like.dtype)
            self._scratch = torch.empty(self.layout.d, dtype=dtype, device=goal.like.device)
        self.receiver.stage(messages, out=self._scratch)
        return write_scaled(self._scratch, out, scale)

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
            self._counter.add_error(*self.sender.error(*self._seen))
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


def write_scaled(estimate: Tensor, out: Vector, scale: float) -> bool:
    """``out <- estimate * scale``; whether out's dtype could hold it.

    A loss scale may push an estimate out of float16's range. All ranks have the same estimate, so all see
    it; the step is then void, as it is for a gradient that overflowed.
    """
    if scale != 1.0:
        estimate = estimate * scale
    tensors = (out,) if isinstance(out, Tensor) else out
    for tensor, part in zip(tensors, torch.split(estimate, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
    return all(t.dtype != torch.float16 or bool(torch.isfinite(t).all()) for t in tensors)


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
