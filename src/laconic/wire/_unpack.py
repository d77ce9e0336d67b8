"""Bytes to messages; nothing in the bytes is believed before it is checked."""

import numpy as np
import torch
from torch import Tensor

from laconic.kernels import Stream
from laconic.messages import Message, Part
from laconic.sizes import FRAME_BYTES, base_bytes, position_form, value_bytes
from laconic.specs import PartSpec
from laconic.wire._cursor import Cursor
from laconic.wire._describe import read_description, read_layout
from laconic.wire._errors import WireError
from laconic.wire._frame import Flags, Frame, as_bytes, frame_of
from laconic.wire._positions import get_positions
from laconic.wire._schema import Schema
from laconic.wire._values import filling, get_codes, get_numbers


def unpack(
    buffer: Tensor | bytes | bytearray | memoryview,
    *,
    expect: Schema | None = None,
    round: int | None = None,
    max_d: int = 2**31,
) -> Message:
    """The message that :func:`laconic.pack` turned into bytes, equal to it bit for bit.

    Args:
        buffer: uint8 (n,) or bytes, the message and nothing else.
        expect: what is known of the sender's messages; needed where they do not describe themselves.
        round: the round that the message must be of; None: any.
        max_d: the longest vector that is accepted. No tensor of more elements is made.

    Returns:
        The message, on the buffer's device.

    Raises:
        WireError: where the bytes are no message, were cut or changed, are of another layout, sender or
            round than expected, or are a frame by which the sender says that its numbers are not finite.

    Example:
        >>> import torch, laconic
        >>> packed = laconic.pack(laconic.ScaledSign().compress(torch.tensor([3.0, -1.0])))
        >>> unpack(packed).dense()
        tensor([ 2., -2.])
        >>> unpack(packed[:-1])
        Traceback (most recent call last):
        laconic.wire._errors.WireError: the frame says that the message has 32 bytes, but the buffer has 31
    """
    data = as_bytes(buffer)
    frame = frame_of(data)
    if frame.length != data.size:
        raise WireError(f"{data.size - frame.length} bytes follow the message's {frame.length}")
    _check(frame, expect, round)
    cursor = Cursor(data, FRAME_BYTES)
    specs = _structure(cursor, frame, expect, max_d)
    parts = tuple(_get_part(cursor, spec, f"segment {i}") for i, spec in enumerate(specs))
    if cursor.left:
        raise WireError(f"{cursor.left} bytes follow the last segment")
    replaces = torch.tensor(Flags.REPLACES in frame.flags) if Flags.CHOOSING in frame.flags else None
    message = Message(parts, replaces=replaces, round=frame.round, digest=frame.digest)
    return (
        message
        if not isinstance(buffer, Tensor) or buffer.device.type == "cpu"
        else message.to(buffer.device)
    )


def _check(frame: Frame, expect: Schema | None, round: int | None) -> None:
    if frame.non_finite:
        raise WireError(
            f"the sender's numbers of round {frame.round} are not finite: discard the round on every rank "
            "(read_frame tells so beforehand)"
        )
    if expect is not None and frame.digest != expect.digest:
        raise WireError(
            f"the message is of another layout, digest {frame.digest:#010x}; expected is "
            f"{expect.digest:#010x}: do all ranks have the same parameters?"
        )
    if round is not None and frame.round != round:
        raise WireError(
            f"the message is of round {frame.round}, but round {round} is expected: did a rank skip a step?"
        )


def _structure(cursor: Cursor, frame: Frame, expect: Schema | None, max_d: int) -> tuple[PartSpec, ...]:
    if frame.described:
        specs = read_description(cursor, max_d)
        if expect is not None:
            expect.require(specs)
        if Flags.NAMED in frame.flags:
            layout = read_layout(cursor, specs)
            if layout.digest != frame.digest:
                raise WireError(f"the named segments have digest {layout.digest:#010x}, the frame another")
        if frame.silent != all(spec.k == 0 for spec in specs) or frame.dense:
            raise WireError("the frame's flags contradict the description")
        return specs
    if expect is None:
        raise WireError("the message does not describe itself: pass expect=, what the sender packed it with")
    specs = expect.specs_of(frame.flags)
    if (d := sum(spec.d for spec in specs)) > max_d:
        raise WireError(f"the vector has {d} elements, more than max_d = {max_d}")
    return specs


def _get_part(cursor: Cursor, spec: PartSpec, name: str) -> Part:
    kind, used, count = spec.kind, spec.k, None
    if kind.counted:
        (number,) = cursor.number("<I", f"the count of {name}")
        used = int(number)
        if used > spec.k:
            raise WireError(f"{name} uses {used} of {spec.k} places")
        count = torch.tensor([used])
    draw: tuple[int, ...] = ()
    positions = None
    if kind.origin:
        draw = tuple(int(n) for n in cursor.number("<qIII", f"the origin of {name}"))
    elif kind.listed:
        size = position_form(spec.d, used, kind.cells)[1]
        positions = get_positions(cursor.take(size, f"the positions of {name}"), spec.d, used, kind.cells)
    size = spec.scales * kind.dtype.itemsize
    scale = get_numbers(cursor.take(size, f"the scales of {name}"), kind.dtype) if kind.scale else None
    low = get_numbers(cursor.take(size, f"the lowest of {name}"), kind.dtype) if kind.low else None
    if kind.grid is None:
        values = get_numbers(cursor.take(value_bytes(kind, used), f"the values of {name}"), kind.dtype)
    else:
        base = int.from_bytes(
            cursor.take(base_bytes(kind.grid, kind.dtype), f"the base of {name}").tobytes(), "little"
        )
        codes = get_codes(cursor.take(value_bytes(kind, used), f"the codes of {name}"), base, kind, used)
        values = torch.from_numpy(codes).to(torch.int32)
    if kind.counted:
        assert positions is not None
        more = spec.k - used
        positions = np.pad(positions, (0, more), constant_values=spec.d)
        values = torch.nn.functional.pad(values, (0, more), value=filling(kind.grid, kind.dtype))
    places = None if positions is None else torch.from_numpy(positions)
    if kind.origin:
        seed, round_, node, segment = draw
        places = Stream(seed, round_, node, segment).permuted(spec.d, spec.k).sort().values
    return Part(
        d=spec.d,
        values=values,
        dtype=kind.dtype,
        positions=places,
        count=count,
        grid=kind.grid,
        scale=scale,
        factor=kind.factor,
        seeded=kind.seeded,
        low=low,
        block=kind.block,
        cells=kind.cells,
        origin=torch.tensor(draw) if kind.origin else None,
    )
