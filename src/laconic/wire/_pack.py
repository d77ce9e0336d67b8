"""Messages to bytes."""

import struct

import torch
from torch import Tensor

from laconic.layout import Layout
from laconic.messages import Message, Part
from laconic.sizes import FRAME_BYTES, section_bytes
from laconic.specs import PartSpec, describe, spec_of
from laconic.wire._cursor import Cursor
from laconic.wire._describe import name_layout
from laconic.wire._frame import Flags, Frame, writable, write_frame
from laconic.wire._positions import put_positions
from laconic.wire._schema import Schema
from laconic.wire._values import put_codes, put_numbers

_MASK64 = (1 << 64) - 1


def pack(message: Message, *, expect: Schema | None = None, layout: Layout | None = None) -> Tensor:
    """One node's message as bytes: frame, description, and a section for each segment.

    Args:
        message: without leading dimensions; ``unbind()`` takes a batch apart.
        expect: what the receiver knows already; the description is then left out.
        layout: whose names and shapes go into the description, for files.

    Returns:
        uint8 (nbytes,) on the message's device; without ``expect`` and ``layout`` it has
        ``message.nbytes`` bytes.

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
    size = packed_size(message, expect=expect, layout=layout)
    out = torch.empty(size, dtype=torch.uint8)
    _write(message, out, size, expect, layout)
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
    size = packed_size(message, expect=expect)
    writable(out, size)
    if out.device.type == "cpu" and out.is_contiguous():
        _write(message, out, size, expect, None)
    else:
        out[:size] = pack(message, expect=expect).to(out.device)
    return size


def packed_size(message: Message, *, expect: Schema | None = None, layout: Layout | None = None) -> int:
    """Bytes that :func:`pack` makes, exactly, without packing."""
    if message.batch:
        raise ValueError(
            f"a batch of shape {tuple(message.batch)} does not travel as one message: pack each of unbind()"
        )
    specs = tuple(map(spec_of, message.parts))
    size = FRAME_BYTES if expect is not None else FRAME_BYTES + len(describe(specs))
    if layout is not None:
        size += len(name_layout(layout))
    return size + sum(
        section_bytes(spec, None if part.count is None else int(part.count))
        for spec, part in zip(specs, message.parts, strict=True)
    )


def _write(message: Message, out: Tensor, size: int, expect: Schema | None, layout: Layout | None) -> None:
    data = out.numpy()[:size]
    cursor = Cursor(data, FRAME_BYTES)
    specs = tuple(map(spec_of, message.parts))
    flags = _flags(message, specs, expect, layout)
    if expect is None:
        cursor.put(describe(specs))
    if layout is not None:
        cursor.put(name_layout(layout))
    for part, spec in zip(message.parts, specs, strict=True):
        _put_section(cursor, part, spec)
    write_frame(data, Frame(flags, message.digest, message.round, size))


def _flags(
    message: Message, specs: tuple[PartSpec, ...], expect: Schema | None, layout: Layout | None
) -> Flags:
    if expect is not None:
        if layout is not None:
            raise ValueError("a message whose structure the receiver knows does not name its segments")
        if message.digest != expect.digest:
            raise ValueError(
                f"the message's layout has digest {message.digest:#010x}, the schema's {expect.digest:#010x}"
            )
        flags = expect.flags_of(specs)
    else:
        flags = Flags.DESCRIBED
        if all(spec.k == 0 for spec in specs):
            flags |= Flags.SILENT
    if layout is not None:
        if layout.digest != message.digest:
            raise ValueError("the message is of another layout than the one to be named")
        flags |= Flags.NAMED
    if message.replaces is not None:
        flags |= Flags.CHOOSING
        if bool(message.replaces):
            flags |= Flags.REPLACES
    return flags


def _put_section(cursor: Cursor, part: Part, spec: PartSpec) -> None:
    used = part.k
    if part.count is not None:
        used = int(part.count)
        if not 0 <= used <= part.k:
            raise ValueError(f"a segment uses {used} of {part.k} places")
        cursor.put(struct.pack("<I", used))
    if part.origin is not None:
        seed, *rest = part.origin.tolist()
        cursor.put(struct.pack("<QIII", seed & _MASK64, *rest))
    elif part.positions is not None:
        positions = part.positions[:used].detach().cpu().contiguous().numpy()
        cursor.put(put_positions(positions, spec.d, spec.kind.cells))
    for scale in (part.scale, part.low):
        if scale is not None:
            cursor.put(put_numbers(scale))
    if part.grid is None:
        cursor.put(put_numbers(part.values[:used]))
    else:
        codes = part.values[:used].detach().cpu().to(torch.int64).numpy()
        for piece in put_codes(codes, spec.kind):
            cursor.put(piece)
