"""Frames that stay on a device: packed there with their checksum, and unpacked from rows of all senders.

A frame has the format's largest size. The host writes its head and does not wait; of what arrives it sees the
heads, the states of checksums, and the flags.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.formats import MessageFormat
from laconic.formats._cursor import WireError
from laconic.formats.sizes import FRAME_BYTES
from laconic.kernels.reference.checksum import checksum_before
from laconic.messages import Message
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
    kernels: Any, message: Message | None, expect: MessageFormat, round: int, device: torch.device
) -> Tensor:
    """A message's frame: int32 (words,) on the device of its columns.

    Args:
        kernels: as :func:`row_kernels` found them.
        message: without leading dimensions; None: the sender's numbers are not finite.
        expect: what the receivers know.
        round: the sender's.
        device: where the columns lie.
    """
    nbytes = expect.max_nbytes
    if message is None:
        words = torch.zeros(frame_words(nbytes), dtype=torch.int32, device=device)
        frame = Frame(Flags.NON_FINITE, expect.digest, round, FRAME_BYTES)
    else:
        planned = planned_for(message, expect)
        groups = [section.group for section in planned.sections]
        formats = [section.format for section in planned.sections]
        words = put_sections(kernels, groups, formats, FRAME_BYTES, nbytes)
        frame = planned.frame
    head, size = written_head(frame), frame.length - FRAME_BYTES
    data = bytearray(head + checksum_before(head, size).to_bytes(4, "little"))
    host = torch.frombuffer(data, dtype=torch.int32)
    host = host.pin_memory() if device.type == "cuda" else host
    words[:_HEAD_WORDS].copy_(host, non_blocking=True)
    if size:
        words[_HEAD_WORDS - 1 : _HEAD_WORDS] ^= kernels.crc32_rows(words[None], FRAME_BYTES, size).to(
            torch.int32
        )
    return words


def heads_of(kernels: Any, rows: Tensor, expect: MessageFormat) -> Tensor:
    """What the host has to see of rows: int32 (n, 9) on their device, the head and the checksum's state."""
    size = expect.max_nbytes - FRAME_BYTES
    states = kernels.crc32_rows(rows, FRAME_BYTES, size) if size else torch.zeros_like(rows[:, 0])
    return torch.cat([rows[:, :_HEAD_WORDS], states.to(torch.int32)[:, None]], dim=1)


def frames_of(heads: Tensor, expect: MessageFormat) -> list[Frame]:
    """The frames, once their checksums are verified.

    Args:
        heads: int32 (n, 9) in main memory, as :func:`heads_of` makes them.
        expect: what is known of the messages.

    Raises:
        WireError: as :func:`laconic.wire.read_frame`, with the row as ``node``.
    """
    found = []
    for node, row in enumerate(heads):
        head = row[:_HEAD_WORDS].numpy().tobytes()
        state = int(row[_HEAD_WORDS]) & 0xFFFFFFFF

        def checksum(length: int, head: bytes = head, state: int = state) -> int:
            if length == FRAME_BYTES:
                return zlib.crc32(head[: FRAME_BYTES - 4])
            if length != expect.max_nbytes:
                return -1
            return checksum_before(head[: FRAME_BYTES - 4], length - FRAME_BYTES) ^ state

        with naming(node):
            found.append(head_of(head, expect.max_nbytes, checksum))
    return found


def unpack_rows(
    kernels: Any, rows: Tensor, frames: Sequence[Frame], expect: MessageFormat, round: int
) -> list[Message]:
    """The messages of all rows, with columns on their device; the host waits once.

    Raises:
        WireError: as :func:`laconic.wire.unpack`, with the row as ``node``.
    """
    for node, frame in enumerate(frames):
        with naming(node):
            check_frame(frame, expect, round)
            if frame.flags != frames[0].flags or frame.described:
                raise WireError(
                    f"the frame has the flags {frame.flags!r}, that of node 0 {frames[0].flags!r}"
                )
    found = expect.silent if frames[0].silent else expect.dense if frames[0].dense else expect
    groups, flags = get_sections(kernels, rows, found.groups)
    for node, wrong in enumerate(flags.tolist()):
        with naming(node):
            if wrong:
                raise WireError("positions, codes or numbers are none that a message holds")
    return [Message(own, round=round, digest=frame.digest) for own, frame in zip(groups, frames, strict=True)]
