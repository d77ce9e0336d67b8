"""Packing: messages to bytes."""

import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.formats import GroupFormat, MessageFormat
from laconic.formats._cursor import Bytes, Cursor
from laconic.formats._groups import ORIGIN_BYTES
from laconic.formats.description import describe
from laconic.formats.sizes import COUNT_BYTES, FRAME_BYTES, base_bytes, side_bytes, value_bytes
from laconic.kernels import group_codes
from laconic.kernels.group_positions import put_adaptive, put_positions
from laconic.kernels.position_plan import PositionPlan
from laconic.kernels.tables import Integers
from laconic.layout import Layout
from laconic.messages import Group, Message
from laconic.wire._device import device_kernels, put_sections
from laconic.wire._frame import Flags, Frame, writable, write_frame
from laconic.wire._names import name_layout
from laconic.wire._values import put_codes, put_numbers

_MASK64 = (1 << 64) - 1


def pack(
    message: Message,
    *,
    expect: MessageFormat | None = None,
    layout: Layout | None = None,
    adaptive: bool = False,
) -> Tensor:
    """One node's message as bytes: frame, description, and a section for each group.

    Args:
        message: without leading dimensions; ``unbind()`` takes a batch apart.
        expect: what the receiver knows already; the description is then left out.
        layout: whose names and shapes go into the description, for files.
        adaptive: whether positions travel in blocks that adapt to their density: smaller, but of a size
            that varies. With ``expect``, the format says it.

    Returns:
        uint8 (nbytes,) on the message's device; with no more arguments it has ``message.nbytes`` bytes. For
        a file: ``file.write(packed.cpu().numpy().tobytes())``.

    Raises:
        ValueError: for a batch; a message whose format is not that of ``expect``; a layout of another
            digest; positions that do not ascend or codes outside their grid; 2^32 bytes and more.

    Example:
        >>> import torch, laconic
        >>> message = laconic.TopK(2).compress(torch.tensor([1.0, -5.0, 2.0, 0.5]))
        >>> packed = pack(message)
        >>> packed.shape == (message.nbytes,), laconic.unpack(packed).dense()
        (True, tensor([ 0., -5.,  2.,  0.]))
    """
    planned = _plan(message, expect, layout, adaptive)
    out = torch.empty(planned.frame.length, dtype=torch.uint8, device="cpu")
    _write(out, planned)
    return out.to(message.device)


def pack_into(message: Message, out: Tensor, *, expect: MessageFormat | None = None) -> int:
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
    planned = _plan(message, expect, None, False)
    length = planned.frame.length
    writable(out, length)
    if out.device.type == "cpu" and out.is_contiguous():
        _write(out[:length], planned)
    else:
        packed = torch.empty(length, dtype=torch.uint8, device="cpu")
        _write(packed, planned)
        out[:length] = packed.to(out.device)
    return length


def packed_size(
    message: Message,
    *,
    expect: MessageFormat | None = None,
    layout: Layout | None = None,
    adaptive: bool = False,
) -> int:
    """Bytes that :func:`pack` makes with these arguments, exactly.

    Arithmetic, unless positions adapt to their density: then it takes packing to know.
    """
    return _plan(message, expect, layout, adaptive).frame.length


@dataclass(frozen=True)
class _Section:
    """How a group travels: its columns, and what its size follows from."""

    group: Group
    format: GroupFormat
    used: Integers | None
    plan: PositionPlan | None
    adaptive: Bytes | None

    @property
    def nbytes(self) -> int:
        """Bytes of the section."""
        columns = self.format.columns if self.used is None else int(self.used.sum())
        size = side_bytes(self.format) + value_bytes(self.format.kind, columns)
        if self.adaptive is not None:
            return size + self.adaptive.size
        return size if self.plan is None else size + self.plan.nbytes


@dataclass(frozen=True)
class _Planned:
    """A message whose length is known: its frame, the bytes up to the first section, and the sections."""

    frame: Frame
    head: bytes
    sections: tuple[_Section, ...]


def planned_for(message: Message, expect: MessageFormat) -> _Planned:
    """A message without leading dimensions, as it travels where the receivers know its format."""
    return _plan(message, expect, None, False)


def _plan(message: Message, expect: MessageFormat | None, layout: Layout | None, adaptive: bool) -> _Planned:
    if message.batch:
        raise ValueError(
            f"a batch of shape {tuple(message.batch)} does not travel as one message: pack each of unbind()"
        )
    groups = tuple(group.format for group in message.groups)
    head = b""
    if expect is None:
        if adaptive:
            groups = tuple(one.adapted() for one in groups)
        flags = Flags.DESCRIBED if any(one.columns for one in groups) else Flags.DESCRIBED | Flags.SILENT
        head += describe(groups)
    else:
        groups, flags = _recognised(message, groups, expect)
    if layout is not None:
        if expect is not None:
            raise ValueError("a message whose format the receiver knows does not name its segments")
        if layout.digest_of(message.dtype) != message.digest:
            raise ValueError("the message is of another layout than the one to be named")
        flags |= Flags.NAMED
        head += name_layout(layout)
    if message.replaces is not None:
        flags |= Flags.REPLACE_FLAGS
        head += np.packbits(message.replaces.cpu().numpy(), bitorder="little").tobytes()
    sections = tuple(map(_section, message.groups, groups))
    length = FRAME_BYTES + len(head) + sum(section.nbytes for section in sections)
    return _Planned(Frame(flags, message.digest, message.round, length), head, sections)


def _recognised(
    message: Message, groups: tuple[GroupFormat, ...], expect: MessageFormat
) -> tuple[tuple[GroupFormat, ...], Flags]:
    """The groups as they travel where the receiver expects a format, and the flags that say which it is."""
    if message.digest != expect.digest:
        raise ValueError(
            f"the message's layout and dtype have digest {message.digest:#010x}, but those of expect= have "
            f"{expect.digest:#010x}"
        )
    if expect.replace_flags != (message.replaces is not None):
        has = "has" if message.replaces is not None else "does not have"
        raise ValueError(
            f"expect.replace_flags is {expect.replace_flags}, but the message {has} them: with EF21+ alone "
            "a flag of each segment says whether it replaces the memory"
        )
    coded = tuple(one.adapted() for one in groups) if expect.adaptive else groups
    if coded == expect.groups:
        return expect.groups, Flags(0)
    if groups == expect.silent.groups:
        return groups, Flags.SILENT
    if groups == expect.dense.groups:
        return groups, Flags.DENSE
    raise ValueError(f"the message does not have the format of expect=: {expect.difference(coded)}")


def _section(group: Group, one: GroupFormat) -> _Section:
    used = plan = adaptive = None
    if group.counts is not None:
        used = group.counts.detach().cpu().numpy()
        if bool(((used < 0) | (used > one.table.kept_array)).any()):
            raise ValueError(f"the segments use {used.tolist()} columns of {list(one.kept)}")
    if one.kind.has_positions and not one.kind.sends_seed:
        plan = one.plan if used is None else one.plan_for(used)
        if one.kind.adaptive:
            assert group.positions is not None
            adaptive = put_adaptive(group.positions.detach(), plan)
    return _Section(group, one, used, plan, adaptive)


def _write(out: Tensor, planned: _Planned) -> None:
    groups = [section.group for section in planned.sections]
    formats = [section.format for section in planned.sections]
    data, start = out.numpy(), FRAME_BYTES + len(planned.head)
    kernels = device_kernels(groups[0].values, formats)
    if kernels is not None:
        words = put_sections(kernels, groups, formats, start, out.numel())
        out.copy_(words.view(torch.uint8)[: out.numel()])
    cursor = Cursor(data, FRAME_BYTES)
    cursor.take(len(planned.head), "the head")[:] = np.frombuffer(planned.head, np.uint8)
    if kernels is None:
        for section in planned.sections:
            _write_section(cursor, section)
    write_frame(data, planned.frame)


def _write_section(cursor: Cursor, section: _Section) -> None:
    group, one, kind, used = section.group, section.format, section.format.kind, section.used
    if used is not None:
        cursor.take(COUNT_BYTES * one.segments, "counts")[:] = used.astype("<u4").view(np.uint8)
    if kind.sends_seed:
        assert group.origin is not None
        seed, round_, node = group.origin.tolist()
        origin = struct.pack("<QII", seed & _MASK64, round_, node)
        cursor.take(ORIGIN_BYTES, "the origin")[:] = np.frombuffer(origin, np.uint8)
    elif section.adaptive is not None:
        cursor.take(section.adaptive.size, "positions")[:] = section.adaptive
    elif section.plan is not None:
        assert group.positions is not None
        put_positions(group.positions.detach(), section.plan, cursor.take(section.plan.nbytes, "positions"))
    for scale in (group.scale, group.low):
        if scale is not None:
            put_numbers(scale, kind.dtype, cursor.take(one.scales * kind.dtype.itemsize, "scales"))
    columns = one.columns if used is None else int(used.sum())
    if kind.grid is None:
        values = group.values if used is None else group_codes.compact(group.values, one.table.bounds, used)
        put_numbers(values, kind.dtype, cursor.take(value_bytes(kind, columns), "values"))
    else:
        bases = cursor.take(one.segments * base_bytes(kind.grid, kind.dtype), "bases")
        put_codes(group.values, one, used, bases, cursor.take(value_bytes(kind, columns), "codes"))
