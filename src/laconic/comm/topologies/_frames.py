"""Senders that pack their messages into frames, and receivers that unpack them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from laconic.comm.errors import ExchangeError
from laconic.comm.topologies._protocol import BucketContext
from laconic.comm.topologies._vectors import Destination, Source, unscaled, write_scaled
from laconic.feedback import NotFiniteError, deferred_checks
from laconic.formats import MessageFormat, accumulation_dtype
from laconic.formats.sizes import FRAME_BYTES
from laconic.kernels.tables import SegmentedVector
from laconic.messages import Message
from laconic.wire import (
    UnpackedRows,
    WireError,
    pack_into,
    pack_non_finite,
    pack_row,
    packed_size,
    read_frame,
    row_kernels,
    rows_for,
    says_not_finite,
    unpack,
    unpack_rows,
)


class FrameSender:
    """A node's sender: vector in, frame out.

    Args:
        context: the segments, the method, and the number of the node, which is this rank's.
    """

    def __init__(self, context: BucketContext) -> None:
        """Start with memories of zeros."""
        self._context = context
        self.sender = context.feedback.sender(
            context.layout, node=context.collectives.rank, seed=context.seed, dtype=context.like.dtype
        )
        self._seen: tuple[Message, Tensor] | None = None
        self._frame = torch.zeros(0, dtype=torch.uint8, device="cpu")

    @property
    def format(self) -> MessageFormat:
        """The format of the next message."""
        return self._context.format(self.sender.round)

    @property
    def frame_nbytes(self) -> int:
        """Bytes of the room for a frame."""
        return self._frame.nbytes

    def stage(self, source: Source, scale: float = 1.0) -> tuple[Tensor, Message | None]:
        """This round's frame, and its message; None where the numbers are not finite, as the frame says.

        The frame is overwritten in the next round. It is in main memory: from a device, the host waits once.
        """
        counter, expected = self._context.counter, self.format
        if (kernels := row_kernels(expected, self._context.like)) is not None:
            row, message = self._row(kernels, source, scale)
            with counter.phase("pack"):
                frame = self._room(expected.max_nbytes)
                frame.copy_(row.view(torch.uint8)[: frame.numel()])
                return frame, None if says_not_finite(frame) else message
        with counter.phase("select"):
            message = self._message(unscaled(source, scale))
        with counter.phase("pack"):
            return self._packed(message), message

    def stage_row(self, kernels: Any, source: Source, scale: float = 1.0) -> Tensor:
        """As :meth:`stage`, the frame alone, int32 (words,) on the device of the vector; no wait."""
        return self._row(kernels, source, scale)[0]

    def _row(self, kernels: Any, source: Source, scale: float) -> tuple[Tensor, Message | None]:
        counter, device = self._context.counter, self._context.like.device
        with counter.phase("select"), deferred_checks() as flags:
            message = self._message(unscaled(source, scale))
        with counter.phase("pack"):
            finite = torch.stack(flags).all() if flags else None
            return pack_row(kernels, message, self.format, self.sender.round, device, finite), message

    def _message(self, source: Source) -> Message | None:
        try:
            message = self.sender.stage(source)
        except NotFiniteError:
            # To be told to all ranks, not raised on one: the others wait in the collective.
            return None
        if self._context.counter.measuring:
            self._seen = message, SegmentedVector.of(source).flattened().clone()
        return message

    def _packed(self, message: Message | None) -> Tensor:
        expected = self.format
        if expected.fixed:
            size = expected.max_nbytes
        else:
            size = FRAME_BYTES if message is None else packed_size(message, expect=expected)
        frame = self._room(size)
        if message is None:
            pack_non_finite(frame.zero_(), expected.digest, self.sender.round)
        else:
            pack_into(message, frame, expect=expected)
        return frame

    def _room(self, size: int) -> Tensor:
        if self._frame.numel() != size:
            # Page-locked where columns come from a GPU, so that the copy is one.
            pinned = self._context.like.device.type == "cuda"
            self._frame = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned, device="cpu")
        return self._frame

    def commit(self) -> None:
        """Let the memories move on, and measure the compression error where it is wanted."""
        self.sender.commit()
        if self._seen is not None:
            self._context.counter.add_error(*self.sender.error(*self._seen))
            self._seen = None

    def roll_back(self) -> None:
        """Forget the round."""
        self.sender.roll_back()
        self._seen = None


class FrameReceiver:
    """A receiver: the frames of all nodes in, the estimate of the mean out.

    Args:
        context: the segments and the method.
        nodes: how many.
    """

    def __init__(self, context: BucketContext, nodes: int) -> None:
        """Start with memories of zeros."""
        self._context = context
        self.receiver = context.feedback.receiver(context.layout, nodes, dtype=context.like.dtype)
        self._scratch: Tensor | None = None
        self._arrived: UnpackedRows | None = None

    def stage(
        self,
        frames: Sequence[Tensor],
        out: Destination,
        scale: float = 1.0,
        known: Mapping[int, Message] = MappingProxyType({}),
    ) -> bool:
        """Write the estimate times ``scale``; False where a sender's numbers or the estimate are not finite.

        Args:
            frames: in the order of nodes.
            out: as for :meth:`BucketExchange.stage`.
            scale: likewise.
            known: messages by node that are known without unpacking.

        Raises:
            ExchangeError: for a frame that was not expected.
        """
        counter = self._context.counter
        with counter.phase("unpack"):
            messages = self._unpacked_on_device(frames, SegmentedVector.of(out).like, known)
            if messages is None:
                messages = [
                    known[node] if node in known else self._unpacked(frame, node)
                    for node, frame in enumerate(frames)
                ]
        finite = [message for message in messages if message is not None]
        if len(finite) < len(messages):
            return False
        with counter.phase("apply"):
            return self._apply(finite, out, scale)

    def _unpacked_on_device(
        self, frames: Sequence[Tensor], like: Tensor, known: Mapping[int, Message]
    ) -> list[Message | None] | None:
        """All messages, on the device of ``like``; None where they go by way of main memory."""
        others = [node for node in range(len(frames)) if node not in known]
        expected = self._context.format(self.receiver.round)
        fit = others and all(frames[node].numel() == expected.max_nbytes for node in others)
        kernels = row_kernels(expected, like) if fit else None
        if kernels is None:
            return None
        unpacked = unpack_rows(kernels, rows_for([frames[node] for node in others], like.device), expected)
        found = self._seen(unpacked, unpacked.seen.cpu(), others)
        if found is None:
            return [None]
        messages = {**known, **dict(zip(others, found, strict=True))}
        return [messages[node] for node in range(len(frames))]

    def _seen(self, unpacked: UnpackedRows, seen: Tensor, nodes: Sequence[int]) -> list[Message] | None:
        try:
            return unpacked.messages(seen, self.receiver.round)
        except WireError as error:
            raise self._refused(nodes[getattr(error, "node", 0)], error) from error

    def unpack_rows(self, kernels: Any, rows: Tensor) -> Tensor:
        """Unpack frames on their device; what the host has to see of them, int32 (n, m) there.

        Args:
            kernels: that unpack them.
            rows: int32 (n, words), the frame of each node.
        """
        self._arrived = unpack_rows(kernels, rows, self._context.format(self.receiver.round))
        return self._arrived.seen

    def stage_rows(self, seen: Tensor, out: Destination, scale: float = 1.0) -> bool:
        """As :meth:`stage`, of frames that :meth:`unpack_rows` has unpacked.

        Args:
            seen: what it returned, in main memory.
            out, scale: as for :meth:`stage`.
        """
        counter, unpacked, self._arrived = self._context.counter, self._arrived, None
        assert unpacked is not None
        with counter.phase("unpack"):
            messages = self._seen(unpacked, seen, range(len(seen)))
        if messages is None:
            return False
        with counter.phase("apply"):
            return self._apply(messages, out, scale)

    def _refused(self, node: int, error: WireError) -> ExchangeError:
        return ExchangeError(f"the message of rank {node} for {self._context.what}: {error}")

    def _unpacked(self, buffer: Tensor, node: int) -> Message | None:
        round_ = self.receiver.round
        try:
            frame = read_frame(buffer)
            if frame.non_finite:
                return None
            expected = self._context.format(round_)
            return unpack(buffer[: frame.length], frame=frame, expect=expected, round=round_)
        except WireError as error:
            raise self._refused(node, error) from error

    def _apply(self, messages: list[Message], out: Destination, scale: float) -> bool:
        like = SegmentedVector.of(out).like
        messages = [message.to(like.device) for message in messages]
        if scale == 1.0 and like.dtype != torch.float16:
            self.receiver.stage(messages, out=out)
            return True
        if self._scratch is None:
            dtype = accumulation_dtype(like.dtype)
            self._scratch = torch.empty(self._context.layout.d, dtype=dtype, device=like.device)
        self.receiver.stage(messages, out=self._scratch)
        if isinstance(out, SegmentedVector):
            assert out.flat is not None
            out = out.flat
        return write_scaled(self._scratch, out, scale)
