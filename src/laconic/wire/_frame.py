"""The frame: the header of 32 bytes of every message."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import torch
from torch import Tensor

from laconic.formats._cursor import Bytes, WireError
from laconic.formats.sizes import FRAME_BYTES

MAGIC = b"Lc"
VERSION = 2
_FRAME = struct.Struct("<2sBBHBBIIIQ")
_CHECKSUM = struct.Struct("<I")
_LIMIT = 1 << 32


class Flags(IntFlag):
    """The bits of a frame's flags."""

    NON_FINITE = 1
    """The sender's numbers were not finite; nothing follows."""
    SILENT = 2
    """Nothing was kept of any segment."""
    DENSE = 4
    """Every number travels, whatever the compressor."""
    DESCRIBED = 8
    """The message's format follows the frame."""
    NAMED = 16
    """The layout's names and shapes follow the format."""
    REPLACE_FLAGS = 32
    """A bit for each segment follows: whether it replaces the memory, or is added to it (EF21+)."""
    CHANGED = 64
    """The sender's settings changed. Nothing in this version writes it; readers let it pass."""


@dataclass(frozen=True)
class Frame:
    """What a message's first 32 bytes say.

    Args:
        flags: see :class:`Flags`.
        digest: 32 bits of a hash of layout and dtype; 0 where there is no layout.
        round: the sender's round.
        length: bytes of the whole message, frame included.
        agreement: 64 bits on which all ranks have to agree; 0 in this version.
        stage: the stage or shard that the message belongs to. 0 in this version, which refuses others.
    """

    flags: Flags
    digest: int
    round: int
    length: int
    agreement: int = 0
    stage: int = 0

    @property
    def non_finite(self) -> bool:
        """Whether the sender's numbers were not finite, so that every rank has to discard the round."""
        return Flags.NON_FINITE in self.flags

    @property
    def silent(self) -> bool:
        """Whether nothing was kept."""
        return Flags.SILENT in self.flags

    @property
    def dense(self) -> bool:
        """Whether every number travels, as in EF21's first round."""
        return Flags.DENSE in self.flags

    @property
    def described(self) -> bool:
        """Whether the message describes itself."""
        return Flags.DESCRIBED in self.flags

    @property
    def changed(self) -> bool:
        """Whether the sender's settings changed."""
        return Flags.CHANGED in self.flags


def read_frame(buffer: Tensor | bytes | bytearray | memoryview) -> Frame:
    """The frame of a message, once its checksum is verified; the buffer may be longer than the message.

    :func:`laconic.unpack` takes the frame, so that no message is verified twice.

    Args:
        buffer: uint8 (n,), or bytes.

    Raises:
        WireError: where the buffer is too short, starts otherwise, is of another version of the format,
            has unknown flags or a wrong checksum.

    Example:
        >>> import torch, laconic
        >>> packed = laconic.pack(laconic.TopK(1).compress(torch.tensor([3.0, -4.0])))
        >>> read_frame(packed).length == packed.numel()
        True
    """
    return frame_of(as_bytes(buffer))


def frame_of(data: Bytes) -> Frame:
    """As :func:`read_frame`, for a NumPy array."""
    return head_of(data[:FRAME_BYTES].tobytes(), data.size, lambda length: _checksum(data[:length]))


def head_of(head: bytes, size: int, checksum_of: Callable[[int], int]) -> Frame:
    """As :func:`read_frame`.

    Args:
        head: the first bytes of the message.
        size: bytes of the buffer.
        checksum_of: from the length that the frame says to the checksum of so many bytes.
    """
    if len(head) > len(MAGIC):
        _check_version(head)
    if len(head) < FRAME_BYTES:
        raise WireError(f"{len(head)} bytes are too few: a message starts with {FRAME_BYTES} bytes of frame")
    _, _, extension, flags, stage, reserved, digest, round_, length, agreement = _FRAME.unpack_from(head)
    if length < FRAME_BYTES or length > size:
        raise WireError(f"the frame says that the message has {length} bytes, but the buffer has {size}")
    (checksum,) = _CHECKSUM.unpack_from(head, _FRAME.size)
    if checksum != checksum_of(length):
        raise WireError(f"the checksum does not fit the {length} bytes: the message was corrupted on its way")
    for name, byte in (("extension", extension), ("stage", stage), ("reserved byte", reserved)):
        if byte:
            raise WireError(
                f"the frame has {name} {byte}: a later version of the library wrote it; "
                "run the same version on all ranks"
            )
    return Frame(_checked(flags, length), digest, round_, length, agreement, stage)


def _check_version(head: bytes) -> None:
    if not head.startswith(MAGIC):
        start = head[: len(MAGIC)]
        raise WireError(
            f"the bytes start with {start!r}, a message starts with {MAGIC!r}: this is no message"
        )
    version = head[len(MAGIC)]
    if version < VERSION:
        raise WireError(
            f"the message is of version {version} of the format, this library reads version {VERSION}: "
            "update laconic on all ranks; unpack files with the version that wrote them, and save "
            "the decoded numbers"
        )
    if version > VERSION:
        raise WireError(
            f"the message is of version {version} of the format, this library reads version {VERSION}: "
            "update laconic"
        )


def _checked(bits: int, length: int) -> Flags:
    if bits & ~sum(Flags):
        raise WireError(f"the frame has unknown flags ({bits:#06x})")
    flags = Flags(bits)
    if Flags.NAMED in flags and Flags.DESCRIBED not in flags:
        raise WireError("the frame promises the layout's names without the message's format")
    if Flags.SILENT in flags and Flags.DENSE in flags:
        raise WireError("the frame says that the message is both silent and dense")
    if Flags.NON_FINITE in flags and (flags & ~Flags.CHANGED != Flags.NON_FINITE or length != FRAME_BYTES):
        raise WireError("the frame says that the sender's numbers were not finite, but more follows")
    return flags


def write_frame(data: Bytes, frame: Frame) -> None:
    """Write the frame in front of the message's other bytes, which must stand in their places."""
    data[: _FRAME.size] = np.frombuffer(written_head(frame), np.uint8)
    checksum = _CHECKSUM.pack(_checksum(data[: frame.length]))
    data[_FRAME.size : FRAME_BYTES] = np.frombuffer(checksum, np.uint8)


def written_head(frame: Frame) -> bytes:
    """The frame's bytes before its checksum."""
    if not 0 <= frame.round < _LIMIT:
        raise ValueError(f"the round must lie in [0, 2^32) to travel, got {frame.round}")
    if frame.length >= _LIMIT:
        raise ValueError(
            f"a message holds less than 2^32 bytes, this one takes {frame.length}; cut the layout"
        )
    numbers = (frame.digest, frame.round, frame.length, frame.agreement)
    return _FRAME.pack(MAGIC, VERSION, 0, int(frame.flags), frame.stage, 0, *numbers)


def _checksum(data: Bytes) -> int:
    start = zlib.crc32(data[: _FRAME.size].data)
    return zlib.crc32(data[FRAME_BYTES:].data, start)


def pack_non_finite(out: Tensor, digest: int, round: int) -> int:
    """Write a frame that says that this node's numbers are not finite, so that all discard the round.

    Args:
        out: uint8 (n,), n >= 32.
        digest: of the sender's layout and dtype, as its messages have it.
        round: the sender's round.

    Returns:
        Bytes written: 32.
    """
    data = np.zeros(FRAME_BYTES, np.uint8)
    write_frame(data, Frame(Flags.NON_FINITE, digest, round, FRAME_BYTES))
    writable(out, FRAME_BYTES)[:FRAME_BYTES] = torch.from_numpy(data).to(out.device)
    return FRAME_BYTES


def says_not_finite(message: Tensor) -> bool:
    """Whether this process's own message, uint8 (n,), says that its numbers are not finite."""
    head = message[:FRAME_BYTES].numpy().tobytes()
    return bool(_FRAME.unpack_from(head)[3] & Flags.NON_FINITE)


def writable(out: Tensor, size: int) -> Tensor:
    """A caller's buffer, once it is known to take ``size`` bytes; ValueError otherwise."""
    if out.dtype != torch.uint8 or out.dim() != 1:
        raise ValueError(f"the buffer must be uint8 (n,), got {out.dtype} {tuple(out.shape)}")
    if out.numel() < size:
        raise ValueError(f"the message takes {size} bytes, but the buffer has {out.numel()}")
    return out


def as_bytes(buffer: Tensor | bytes | bytearray | memoryview) -> Bytes:
    """The buffer as a contiguous array of bytes in memory; TypeError for anything else."""
    if isinstance(buffer, Tensor):
        if buffer.dtype != torch.uint8 or buffer.dim() != 1:
            raise TypeError(f"a packed message is uint8 (n,), got {buffer.dtype} {tuple(buffer.shape)}")
        return np.ascontiguousarray(buffer.detach().cpu().numpy())
    return np.frombuffer(buffer, np.uint8)
