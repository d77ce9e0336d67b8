"""Unpacking: bytes to messages, validated before use."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from laconic.formats import GroupFormat, MessageFormat
from laconic.formats._cursor import Cursor, WireError
from laconic.formats.description import read_description
from laconic.formats.sizes import (
    COUNT_BYTES,
    FRAME_BYTES,
    base_bytes,
    value_bytes,
    whole_bytes,
)
from laconic.kernels import Stream, group_codes, permuted_segments
from laconic.kernels.group_positions import get_adaptive, get_positions
from laconic.kernels.tables import Integers
from laconic.messages import Group, Message
from laconic.wire._frame import Flags, Frame, as_bytes, frame_of
from laconic.wire._names import read_layout
from laconic.wire._values import get_codes, get_numbers


def unpack(
    buffer: Tensor | bytes | bytearray | memoryview,
    *,
    frame: Frame | None = None,
    expect: MessageFormat | None = None,
    round: int | None = None,
    max_d: int = 2**31,
) -> Message:
    """The message that :func:`laconic.pack` turned into bytes, equal to it bit for bit.

    Args:
        buffer: uint8 (n,) or bytes, the message and nothing else.
        frame: what :func:`laconic.wire.read_frame` made of this buffer; frame and checksum are then not
            verified again.
        expect: what is known of the sender's messages; needed where they do not describe themselves.
        round: the round that the message must be of; None: any.
        max_d: the longest vector that is accepted. No tensor of more elements is made.

    Returns:
        The message, on the buffer's device. The formats of its groups are those of ``expect``, the same
        objects.

    Raises:
        WireError: where the bytes are no message, were cut or changed, are of another layout, sender or
            round than expected, hold NaN or infinity, or are a frame by which the sender says that its
            numbers are not finite.

    Example:
        >>> import torch, laconic
        >>> packed = laconic.pack(laconic.ScaledSign().compress(torch.tensor([3.0, -1.0])))
        >>> unpack(packed).dense()
        tensor([ 2., -2.])
        >>> unpack(packed[:-1])
        Traceback (most recent call last):
        laconic.formats._cursor.WireError: the frame says that the message has 46 bytes, but the buffer has 45
    """
    data = as_bytes(buffer)
    frame = frame_of(data) if frame is None else frame
    if frame.length != data.size:
        raise WireError(f"the buffer has {data.size} bytes, the message {frame.length}")
    check_frame(frame, expect, round)
    cursor = Cursor(data, FRAME_BYTES)
    found = _format(cursor, frame, expect, max_d)
    replaces = _get_choices(cursor, found.segments) if Flags.REPLACE_FLAGS in frame.flags else None
    groups = []
    for number, one in enumerate(found.groups):
        try:
            groups.append(_get_group(cursor, one, f"group {number}"))
        except WireError:
            raise
        except ValueError as problem:
            raise WireError(f"group {number}: {problem}") from None
    if cursor.left:
        raise WireError(f"{cursor.left} bytes follow the last group")
    message = Message(groups, replaces=replaces, round=frame.round, digest=frame.digest)
    return message.to(buffer.device) if isinstance(buffer, Tensor) else message


@contextmanager
def naming(node: int) -> Iterator[None]:
    """Say of whose message a WireError is, in its attribute ``node``."""
    try:
        yield
    except WireError as error:
        error.node = node  # type: ignore[attr-defined]
        raise


def check_frame(frame: Frame, expect: MessageFormat | None, round: int | None) -> None:
    """Refuse the frame of another layout, method or round than expected, with a WireError."""
    if frame.non_finite:
        raise WireError(
            f"the sender's numbers of round {frame.round} are not finite: discard the round on every rank "
            "(read_frame tells so beforehand)"
        )
    if expect is not None and frame.digest != expect.digest:
        raise WireError(
            f"the message is of another layout or dtype, digest {frame.digest:#010x}; expected is "
            f"{expect.digest:#010x}: do all ranks have the same parameters?"
        )
    if expect is not None and expect.replace_flags != (Flags.REPLACE_FLAGS in frame.flags):
        has = "does not have" if expect.replace_flags else "has"
        raise WireError(
            f"the sender uses another method: the message {has} flags for replacing the memory (EF21+)"
        )
    if round is not None and frame.round != round:
        raise WireError(
            f"the message is of round {frame.round}, but round {round} is expected: did a rank skip a step?"
        )


def _format(cursor: Cursor, frame: Frame, expect: MessageFormat | None, max_d: int) -> MessageFormat:
    if frame.described:
        return _described(cursor, frame, expect, max_d)
    if expect is None:
        raise WireError(
            "the message does not describe itself: pass expect=, the format of the sender's messages"
        )
    if expect.d > max_d:
        raise WireError(f"the vector has {expect.d} elements, more than max_d = {max_d}")
    if frame.silent:
        return expect.silent
    return expect.dense if frame.dense else expect


def _described(cursor: Cursor, frame: Frame, expect: MessageFormat | None, max_d: int) -> MessageFormat:
    found = MessageFormat(read_description(cursor, max_d), frame.digest, Flags.REPLACE_FLAGS in frame.flags)
    if frame.dense or frame.silent != all(one.columns == 0 for one in found.groups):
        raise WireError("the frame's flags contradict the description")
    if Flags.NAMED in frame.flags:
        digest = read_layout(cursor, found).digest_of(found.dtype)
        if digest != frame.digest:
            raise WireError(f"the named segments have digest {digest:#010x}, the frame another")
    if expect is None:
        return found
    for known in (expect, expect.silent, expect.dense):
        if found.groups == known.groups and all(map(_same_draws, found.groups, known.groups)):
            return known
    raise WireError(f"the message is of another sender: {expect.difference(found.groups)}")


def _same_draws(one: GroupFormat, other: GroupFormat) -> bool:
    return not one.kind.sends_seed or one.table.numbers == other.table.numbers


def _get_choices(cursor: Cursor, segments: int) -> Tensor:
    bits = np.unpackbits(cursor.take(whole_bytes(segments), "the choices"), bitorder="little")
    if bits[segments:].any():
        raise WireError("the choices have bits beyond the last segment")
    return torch.from_numpy(bits[:segments].astype(np.bool_))


def _get_group(cursor: Cursor, one: GroupFormat, name: str) -> Group:
    kind, columns = one.kind, one.columns
    used = positions = origin = scale = low = None
    if kind.has_counts:
        used = _get_counts(cursor, one, name)
        columns = int(used.sum())
    if kind.sends_seed:
        origin = torch.tensor(cursor.number("<qII", f"the origin of {name}"), device="cpu")
    elif kind.has_positions:
        positions = _get_positions(cursor, one, used, name)
    if kind.has_scale:
        scale = _get_numbers(cursor, one.scales, kind.dtype, f"the scales of {name}")
    if kind.has_low:
        low = _get_numbers(cursor, one.scales, kind.dtype, f"the lowest magnitudes of {name}")
    values = _get_values(cursor, one, used, columns, name)
    if origin is not None:
        # Drawn only now that as many values have been read: the buffer, not a number in it, sets the work.
        positions = permuted_segments(Stream(*origin.tolist()), one.table)
    counts = None if used is None else torch.from_numpy(used)
    return Group(one, values, positions, counts, scale, low, origin)


def _get_numbers(cursor: Cursor, count: int, dtype: torch.dtype, what: str) -> Tensor:
    return get_numbers(cursor.take(count * dtype.itemsize, what), dtype, what)


def _get_counts(cursor: Cursor, one: GroupFormat, name: str) -> Integers:
    data = cursor.take(COUNT_BYTES * one.segments, f"the counts of {name}")
    used = np.frombuffer(data.tobytes(), "<u4").astype(np.int64)
    over = np.flatnonzero(used > one.table.kept_array)
    if over.size:
        s = int(over[0])
        raise WireError(f"segment {s} of {name} uses {used[s]} of {one.kept[s]} columns")
    return used


def _get_positions(cursor: Cursor, one: GroupFormat, used: Integers | None, name: str) -> Tensor:
    plan = one.plan if used is None else one.plan_for(used)
    if not one.kind.adaptive:
        return torch.from_numpy(get_positions(cursor.take(plan.nbytes, f"the positions of {name}"), plan))
    positions, size = get_adaptive(cursor.rest(), plan)
    cursor.take(size, f"the positions of {name}")
    return torch.from_numpy(positions)


def _get_values(cursor: Cursor, one: GroupFormat, used: Integers | None, columns: int, name: str) -> Tensor:
    kind = one.kind
    if kind.grid is None:
        values = _get_numbers(cursor, columns, kind.dtype, f"the values of {name}")
        return values if used is None else group_codes.spread(values, one.table.bounds, used, 0)
    bases = cursor.take(one.segments * base_bytes(kind.grid, kind.dtype), f"the bases of {name}")
    return get_codes(bases, cursor.take(value_bytes(kind, columns), f"the codes of {name}"), one, used)
