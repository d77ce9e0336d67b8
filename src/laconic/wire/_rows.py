"""Frames that stay on a device: packed there with their checksum, and unpacked from rows of all senders.

A frame has the format's largest size. The host does not wait to send one. Of what arrives it sees the heads,
the states of checksums and the flags at once, after the frames have been unpacked.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.formats import MessageFormat
from laconic.formats._cursor import WireError
from laconic.formats.sizes import FRAME_BYTES
from laconic.kernels.reference.checksum import checksum_before
from laconic.messages import Group, Message
from laconic.wire._device import device_kernels, frame_words, get_sections, put_sections
from laconic.wire._frame import Flags, Frame, head_of, written_head
from laconic.wire._pack import planned_for
from laconic.wire._unpack import check_frame, naming

_HEAD_WORDS = FRAME_BYTES // 4


def row_kernels(expect: MessageFormat, like: Tensor) -> Any:
    """``laconic.kernels.gpu`` where messages of a format travel as rows on the tensor's device; else None."""
    if not expect.fixed or expect.replace_flags:
        return None
    return device_kernels(like, expect.groups)


def pack_row(
    kernels: Any,
    message: Message | None,
    expect: MessageFormat,
    round: int,
    device: torch.device,
    finite: Tensor | None = None,
) -> Tensor:
    """A message's frame: int32 (words,) on the device of its columns.

    Args:
        kernels: as :func:`row_kernels` found them.
        message: without leading dimensions; None: the sender's numbers are not finite.
        expect: what the receivers know.
        round: the sender's.
        device: where the columns lie.
        finite: bool () on the device, whether the sender's numbers are finite, which the host does not know;
            None: they are. Where they are not, the frame is as for None in the place of the message.
    """
    nbytes = expect.max_nbytes
    frames = [Frame(Flags.NON_FINITE, expect.digest, round, FRAME_BYTES)]
    if message is None:
        words = torch.zeros(frame_words(nbytes), dtype=torch.int32, device=device)
    else:
        planned = planned_for(message, expect)
        groups = [section.group for section in planned.sections]
        formats = [section.format for section in planned.sections]
        words = put_sections(kernels, groups, formats, FRAME_BYTES, nbytes)
        frames = [planned.frame] if finite is None else [planned.frame, *frames]
    heads = _heads(frames, device)
    size = frames[0].length - FRAME_BYTES
    if size:
        state = kernels.crc32_rows(words[None], FRAME_BYTES, size)
        heads[0, -1:].bitwise_xor_(state.to(torch.int32))
    if finite is not None and message is not None:
        words *= finite
        heads = torch.where(finite, heads[:1], heads[1:])
    words[:_HEAD_WORDS].copy_(heads[0])
    return words


def _heads(frames: Sequence[Frame], device: torch.device) -> Tensor:
    """int32 (n, 8) on the device, with the checksum's part that does not depend on what follows."""
    data = bytearray()
    for frame in frames:
        head = written_head(frame)
        data += head + checksum_before(head, frame.length - FRAME_BYTES).to_bytes(4, "little")
    host = torch.frombuffer(data, dtype=torch.int32).view(len(frames), _HEAD_WORDS)
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class UnpackedRows:
    """The frames of all nodes, unpacked on their device before the host has seen any of them.

    Args:
        groups: of each node; they mean nothing before :meth:`messages` has checked what the host sees.
        seen: int32 (n, 10) on the device, what the host has to see of each frame: its head, the checksum's
            state, and whether anything was found that no message holds.
        expect: what is known of the messages.
    """

    groups: list[list[Group]]
    seen: Tensor
    expect: MessageFormat

    def messages(self, seen: Tensor, round: int) -> list[Message] | None:
        """The messages, with columns on the device; None where a sender's numbers are not finite.

        Args:
            seen: as the attribute, in main memory.
            round: that they must be of.

        Raises:
            WireError: as :func:`laconic.wire.read_frame` and :func:`laconic.wire.unpack`, with the row as
                ``node``.
        """
        frames = []
        for node, row in enumerate(seen):
            with naming(node):
                frames.append(self._frame(row))
        if any(frame.non_finite for frame in frames):
            return None
        found, flags = [], seen[:, -1].tolist()
        for node, (frame, groups, wrong) in enumerate(zip(frames, self.groups, flags, strict=True)):
            with naming(node):
                check_frame(frame, self.expect, round)
                if frame.flags & ~Flags.CHANGED:
                    raise WireError(f"the frame has the flags {frame.flags!r}, and none is expected")
                if wrong:
                    raise WireError("positions, codes or numbers are none that a message holds")
            found.append(Message(groups, round=round, digest=frame.digest))
        return found

    def _frame(self, row: Tensor) -> Frame:
        head = row[:_HEAD_WORDS].numpy().tobytes()
        state = int(row[_HEAD_WORDS]) & 0xFFFFFFFF

        def checksum(length: int) -> int:
            if length == FRAME_BYTES:
                return zlib.crc32(head[: FRAME_BYTES - 4])
            if length != self.expect.max_nbytes:
                return -1
            return checksum_before(head[: FRAME_BYTES - 4], length - FRAME_BYTES) ^ state

        return head_of(head, self.expect.max_nbytes, checksum)


def unpack_rows(kernels: Any, rows: Tensor, expect: MessageFormat) -> UnpackedRows:
    """Unpack frames on a device; the host does not wait.

    Args:
        kernels: as :func:`row_kernels` found them.
        rows: int32 (n, words) as :func:`pack_row` makes them, or :func:`laconic.wire.rows_for`; anything may
            stand in them.
        expect: what is known of the messages.
    """
    groups, flags = get_sections(kernels, rows, expect.groups)
    size = expect.max_nbytes - FRAME_BYTES
    states = kernels.crc32_rows(rows, FRAME_BYTES, size) if size else torch.zeros_like(flags)
    seen = [rows[:, :_HEAD_WORDS], states.to(torch.int32)[:, None], flags[:, None]]
    return UnpackedRows(groups, torch.cat(seen, dim=1), expect)
