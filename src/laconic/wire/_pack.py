"""Messages to bytes."""

import struct
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from laconic._host import to_host
from laconic.layout import Layout
from laconic.messages import Message, Part
from laconic.sizes import FRAME_BYTES, section_bytes, whole_bytes
from laconic.specs import PartSpec, adapted, describe, spec_of
from laconic.wire._cursor import Cursor
from laconic.wire._describe import name_layout
from laconic.wire._frame import Bytes, Flags, Frame, writable, write_frame
from laconic.wire._positions import put_adaptive, put_positions
from laconic.wire._schema import Schema
from laconic.wire._values import packed_in_place, put_codes, put_numbers

Piece = Bytes | Tensor
"""Bytes in main memory, or, as uint8 (n,), where the message's tensors are."""

_MASK64 = (1 << 64) - 1


def pack(
    message: Message,
    *,
    expect: Schema | None = None,
    layout: Layout | None = None,
    adaptive: bool = False,
) -> Tensor:
    """One node's message as bytes: frame, description, and a section for each segment.

    Args:
        message: without leading dimensions; ``unbind()`` takes a batch apart.
        expect: what the receiver knows already; the description is then left out.
        layout: whose names and shapes go into the description, for files.
        adaptive: whether positions travel in blocks that adapt to their density: smaller, but of a size
            that varies. With ``expect``, the schema says it.

    Returns:
        uint8 (nbytes,) on the message's device; with no more arguments it has ``message.nbytes`` bytes.

    Raises:
        ValueError: for a batch; a message whose structure is not that of ``expect``; a layout of another
            digest; positions that do not ascend or codes outside their grid; 2^32 bytes and more.

    Example:
        >>> import torch, laconic
        >>> message = laconic.TopK(2).compress(torch.tensor([1.0, -5.0, 2.0, 0.5]))
        >>> packed = pack(message)
        >>> packed.shape == (message.nbytes,), laconic.unpack(packed).dense()
        (True, tensor([ 0., -5.,  2.,  0.]))
    """
    frame, pieces = _pieces(message, expect, layout, adaptive)
    out = torch.empty(frame.length, dtype=torch.uint8)
    _write(out, frame, pieces)
    return out.to(message.parts[0].values.device)


def pack_into(message: Message, out: Tensor, *, expect: Schema | None = None) -> int:
    """As :func:`pack`, into a caller's buffer.

    Args:
        message: without leading dimensions.
        out: uint8 (n,), at least as long as the message; the bytes after it stay as they are.
        expect: what the receiver knows already.

    Returns:
        Number of bytes written.

    Raises:
        ValueError: as for :func:`pack`, and where the buffer is too short.
    """
    frame, pieces = _pieces(message, expect, None, False)
    writable(out, frame.length)
    if out.device.type == "cpu" and out.is_contiguous():
        _write(out, frame, pieces)
    else:
        packed = torch.empty(frame.length, dtype=torch.uint8)
        _write(packed, frame, pieces)
        out[: frame.length] = packed.to(out.device)
    return frame.length


def packed_size(
    message: Message,
    *,
    expect: Schema | None = None,
    layout: Layout | None = None,
    adaptive: bool = False,
) -> int:
    """Bytes that :func:`pack` makes with these arguments, exactly.

    Arithmetic, unless positions adapt to their density: then it takes packing to know.
    """
    if adaptive or (expect is not None and expect.adaptive):
        return _pieces(message, expect, layout, adaptive)[0].length
    specs = _specs(message, False)
    size = FRAME_BYTES if expect is not None else FRAME_BYTES + len(describe(specs))
    if layout is not None:
        size += len(name_layout(layout))
    if message.replaces is not None:
        size += whole_bytes(len(specs))
    return size + sum(
        section_bytes(spec, None if part.count is None else int(part.count))
        for spec, part in zip(specs, message.parts, strict=True)
    )


def _specs(message: Message, adaptive: bool) -> tuple[PartSpec, ...]:
    if message.batch:
        raise ValueError(
            f"a batch of shape {tuple(message.batch)} does not travel as one message: pack each of unbind()"
        )
    specs = tuple(map(spec_of, message.parts))
    return tuple(map(adapted, specs)) if adaptive else specs


def _pieces(
    message: Message, expect: Schema | None, layout: Layout | None, adaptive: bool
) -> tuple[Frame, list[Piece]]:
    """What follows the frame, and the frame."""
    silent = all(part.k == 0 for part in message.parts)
    flags = Flags.SILENT if silent else Flags(0)
    pieces: list[Piece] = []
    if expect is None:
        specs = _specs(message, adaptive)
        flags |= Flags.DESCRIBED
        pieces.append(np.frombuffer(describe(specs), np.uint8))
    else:
        specs, flags = expect.recognise(_specs(message, False), message.digest)
        if expect.choosing != (message.replaces is not None):
            raise ValueError("message and schema are of different methods: one lets it choose, as EF21+")
    if layout is not None:
        flags |= Flags.NAMED
        pieces.append(_named(layout, message, flags))
    if message.replaces is not None:
        flags |= Flags.CHOOSING
        pieces.append(np.packbits(message.replaces.cpu().numpy(), bitorder="little"))
    for part, spec in zip(message.parts, specs, strict=True):
        pieces.extend(_section(part, spec))
    length = FRAME_BYTES + sum(map(len, pieces))
    return Frame(flags, message.digest, message.round, length), pieces


def _named(layout: Layout, message: Message, flags: Flags) -> Bytes:
    if Flags.DESCRIBED not in flags:
        raise ValueError("a message whose structure the receiver knows does not name its segments")
    if layout.digest != message.digest:
        raise ValueError("the message is of another layout than the one to be named")
    return np.frombuffer(name_layout(layout), np.uint8)


def _write(out: Tensor, frame: Frame, pieces: list[Piece]) -> None:
    data = out.numpy()[: frame.length]
    cursor = Cursor(data, FRAME_BYTES)
    tensors = [piece for piece in pieces if isinstance(piece, Tensor)]
    # All that lies on a device crosses to main memory in one transfer.
    crossed = to_host(torch.cat(tensors)).numpy() if tensors else np.zeros(0, np.uint8)
    arrived = Cursor(crossed, 0)
    for piece in pieces:
        size = len(piece)
        cursor.take(size, "a section")[:] = (
            arrived.take(size, "a section") if isinstance(piece, Tensor) else piece
        )
    write_frame(data, frame)


def _section(part: Part, spec: PartSpec) -> Iterator[Piece]:
    used = part.k
    if part.count is not None:
        used = int(part.count)
        if not 0 <= used <= part.k:
            raise ValueError(f"a segment uses {used} of {part.k} places")
        yield _bytes(struct.pack("<I", used))
    if part.origin is not None:
        seed, *rest = part.origin.tolist()
        yield _bytes(struct.pack("<QIII", seed & _MASK64, *rest))
    elif part.positions is not None:
        positions = part.positions[:used].detach()
        if spec.kind.adaptive:
            yield from put_adaptive(positions.cpu().contiguous().numpy(), spec.d, spec.kind.cells)
        elif packed_in_place(positions):
            yield put_positions(positions, spec.d, spec.kind.cells)
        else:
            yield put_positions(positions.contiguous().numpy(), spec.d, spec.kind.cells)
    for scale in (part.scale, part.low):
        if scale is not None:
            yield put_numbers(scale)
    if part.grid is None:
        yield put_numbers(part.values[:used])
    else:
        base, codes = put_codes(part.values[:used], spec.kind)
        yield _bytes(base)
        yield codes


def _bytes(piece: bytes) -> Bytes:
    return np.frombuffer(piece, np.uint8)
