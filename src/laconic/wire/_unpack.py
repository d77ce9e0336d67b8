"""Bytes to messages; nothing in the bytes is believed before it is checked."""

import numpy as np
import torch
from torch import Tensor

from laconic.kernels import Stream
from laconic.messages import Message, Part
from laconic.sizes import FRAME_BYTES, base_bytes, position_form, value_bytes, whole_bytes
from laconic.specs import PartSpec
from laconic.wire._cursor import Cursor
from laconic.wire._describe import read_description, read_layout
from laconic.wire._errors import WireError
from laconic.wire._frame import Flags, Frame, as_bytes, frame_of
from laconic.wire._positions import get_adaptive, get_positions
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
    replaces = _get_choices(cursor, len(specs)) if Flags.CHOOSING in frame.flags else None
    parts = []
    for number, spec in enumerate(specs):
        try:
            parts.append(_get_part(cursor, spec, f"segment {number}"))
        except WireError:
            raise
        except ValueError as problem:
            raise WireError(f"segment {number}: {problem}") from None
    if cursor.left:
        raise WireError(f"{cursor.left} bytes follow the last segment")
    message = Message(tuple(parts), replaces=replaces, round=frame.round, digest=frame.digest)
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
    if expect is not None and expect.choosing != (Flags.CHOOSING in frame.flags):
        raise WireError("the sender uses another method: one lets messages choose, as EF21+, one does not")
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


def _get_choices(cursor: Cursor, segments: int) -> torch.Tensor:
    bits = np.unpackbits(cursor.take(whole_bytes(segments), "the choices"), bitorder="little")
    if bits[segments:].any():
        raise WireError("the choices have bits beyond the last segment")
    return torch.from_numpy(bits[:segments].astype(np.bool_))


def _get_part(cursor: Cursor, spec: PartSpec, name: str) -> Part:
    kind, used, count = spec.kind, spec.k, None
    if kind.counted:
        (used,) = map(int, cursor.number("<I", f"the count of {name}"))
        if used > spec.k:
            raise WireError(f"{name} uses {used} of {spec.k} places")
        count = torch.tensor([used])
    origin = None
    positions = None
    if kind.origin:
        origin = torch.tensor(cursor.number("<qIII", f"the origin of {name}"))
    elif kind.adaptive:
        positions = torch.from_numpy(get_adaptive(cursor, spec.d, used, kind.cells, name))
    elif kind.listed:
        data = cursor.take(position_form(spec.d, used, kind.cells)[1], f"the positions of {name}")
        positions = torch.from_numpy(get_positions(data, spec.d, used, kind.cells))
    size = spec.scales * kind.dtype.itemsize
    scale = get_numbers(cursor.take(size, f"the scales of {name}"), kind.dtype) if kind.scale else None
    low = get_numbers(cursor.take(size, f"the lowest of {name}"), kind.dtype) if kind.low else None
    values = _get_values(cursor, spec, used, name)
    if kind.counted:
        assert positions is not None
        more = (0, spec.k - used)
        positions = torch.nn.functional.pad(positions, more, value=spec.d)
        values = torch.nn.functional.pad(values, more, value=filling(kind.grid, kind.dtype))
    if origin is not None:
        # Drawn only now that as many values have been read: the buffer, not a number in it, sets the work.
        seed, round_, node, segment = origin.tolist()
        positions = Stream(seed, round_, node, segment).permuted(spec.d, spec.k).sort().values
    return Part(
        d=spec.d,
        values=values,
        dtype=kind.dtype,
        positions=positions,
        count=count,
        grid=kind.grid,
        scale=scale,
        factor=kind.factor,
        seeded=kind.seeded,
        low=low,
        block=kind.block,
        cells=kind.cells,
        origin=origin,
    )


def _get_values(cursor: Cursor, spec: PartSpec, used: int, name: str) -> Tensor:
    kind = spec.kind
    size = value_bytes(kind, used)
    if kind.grid is None:
        return get_numbers(cursor.take(size, f"the values of {name}"), kind.dtype)
    base = cursor.take(base_bytes(kind.grid, kind.dtype), f"the base of {name}")
    codes = cursor.take(size, f"the codes of {name}")
    return get_codes(codes, int.from_bytes(base.tobytes(), "little"), kind, used)
