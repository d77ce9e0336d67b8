"""Inspection of files: packed messages and checkpoints."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.formats import GroupFormat, MessageFormat
from laconic.formats._cursor import Cursor
from laconic.formats.description import describe, read_description
from laconic.formats.sizes import FRAME_BYTES, base_bytes, symbol_bits
from laconic.kernels.position_plan import BITMAP, CELLS, ELIAS_FANO, IMPLIED
from laconic.kernels.tables import Integers
from laconic.layout import Layout
from laconic.messages import Message
from laconic.wire._frame import MAGIC, VERSION, Flags, Frame, as_bytes, frame_of
from laconic.wire._names import read_layout
from laconic.wire._unpack import unpack

_FORMS = {IMPLIED: "implied", CELLS: "cells", ELIAS_FANO: "elias-fano", BITMAP: "bitmap"}


@dataclass(frozen=True)
class SegmentReport:
    """What is known of one segment of a packed message.

    Args:
        name: its name, where the message carries names.
        shape: likewise.
        d: its length.
        kept: columns in use.
        positions: how positions travel.
        values: how values travel.
        smallest: of the decoded magnitudes that are not 0; None where there are none.
        largest: of the decoded magnitudes.
    """

    name: str | None
    shape: tuple[int, ...] | None
    d: int
    kept: int
    positions: str
    values: str
    smallest: float | None
    largest: float | None


@dataclass(frozen=True)
class MessageReport:
    """What is known of a packed message."""

    nbytes: int
    version: int
    round: int
    digest: int
    flags: tuple[str, ...]
    d: int
    kept: int
    bits_per_kept: float | None
    bits_per_coordinate: float
    entropy_bits: int
    description_nbytes: int
    segments: tuple[SegmentReport, ...]

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def inspect_message(buffer: Tensor | bytes, *, max_d: int = 2**31) -> MessageReport:
    """What a message that describes itself says of itself.

    Args:
        buffer: uint8 (n,) or bytes.
        max_d: as for :func:`laconic.unpack`.

    Raises:
        WireError: where the bytes are no message that describes itself.

    Example:
        >>> import torch, laconic
        >>> report = inspect_message(laconic.pack(laconic.TopK(1).compress(torch.tensor([3.0, -4.0]))))
        >>> report.d, report.kept, report.segments[0].positions
        (2, 1, 'elias-fano')
    """
    data = as_bytes(buffer)
    frame = frame_of(data)
    message = unpack(data.data, frame=frame, max_d=max_d)
    cursor = Cursor(data, FRAME_BYTES)
    found = MessageFormat(read_description(cursor, max_d))
    layout = read_layout(cursor, found) if Flags.NAMED in frame.flags else None
    return _report(frame, message, layout)


def _report(frame: Frame, message: Message, layout: Layout | None) -> MessageReport:
    segments = _segments(message, layout)
    kept = sum(segment.kept for segment in segments)
    return MessageReport(
        nbytes=frame.length,
        version=VERSION,
        round=frame.round,
        digest=frame.digest,
        flags=tuple(str(flag.name).lower() for flag in Flags if flag in frame.flags),
        d=message.d,
        kept=kept,
        bits_per_kept=8 * frame.length / kept if kept else None,
        bits_per_coordinate=8 * frame.length / message.d,
        entropy_bits=int(message.bits("entropy")),
        description_nbytes=len(describe(message.format.groups)),
        segments=segments,
    )


def _segments(message: Message, layout: Layout | None) -> tuple[SegmentReport, ...]:
    """Every segment, in the layout's order."""
    reports = {}
    for group in message.groups:
        one = group.format
        used = one.table.kept_array if group.counts is None else group.counts.cpu().numpy()
        positions, values = _positions(one, used), _values(one)
        numbers, bounds = group.decode().abs(), one.table.bounds.tolist()
        for s, place in enumerate(one.places):
            kept = int(used[s])
            magnitude = numbers[bounds[s] : bounds[s] + kept]
            nonzero = magnitude[magnitude > 0]
            segment = None if layout is None else layout.segments[place]
            reports[place] = SegmentReport(
                name=None if segment is None else segment.name,
                shape=None if segment is None else segment.shape,
                d=one.numels[s],
                kept=kept,
                positions=positions[s],
                values=values,
                smallest=float(nonzero.min()) if nonzero.numel() else None,
                largest=float(magnitude.max()) if magnitude.numel() else None,
            )
    return tuple(reports[place] for place in sorted(reports))


def _positions(one: GroupFormat, used: Integers) -> list[str]:
    """How the positions of each segment travel."""
    if not one.kind.has_positions:
        return ["all"] * one.segments
    if one.kind.sends_seed:
        return ["seed"] * one.segments
    forms = [_FORMS[form] for form in one.plan_for(used).forms.tolist()]
    return [f"adaptive or {form}" for form in forms] if one.kind.adaptive else forms


def _values(one: GroupFormat) -> str:
    kind = one.kind
    if kind.grid is None:
        return str(kind.dtype).removeprefix("torch.")
    shared, bits = symbol_bits(kind.grid.symbols(kind.dtype))
    width = f"{bits} bits" if shared == 1 else f"{shared} to a byte"
    columns = "one a segment" if kind.block is None else f"one for {kind.block} columns"
    scales = f", scales: {columns}" if kind.has_scale else ""
    base = f", bases of {base_bytes(kind.grid, kind.dtype)} bytes" if kind.grid.window(kind.dtype) else ""
    return f"{type(kind.grid).__name__} {width}{scales}{base}"


def inspect_checkpoint(path: Path) -> list[tuple[str, str]]:
    """The names and contents of what ``torch.save`` wrote, without running any code from the file.

    Args:
        path: the file.

    Returns:
        (name, what stands there), with dots between the levels of dictionaries and lists.

    Raises:
        ValueError: where the file is no checkpoint of tensors, numbers and texts.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:
        # PyTorch's own words would advise to run the file.
        text = f"{path} is neither a packed message nor a checkpoint of tensors, numbers and texts alone"
        raise ValueError(text) from problem
    return _walk("", state)


def _walk(name: str, value: object) -> list[tuple[str, str]]:
    items: list[tuple[object, object]]
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, (list, tuple)) and value:
        items = list(enumerate(value))
    else:
        return [(name or ".", _shown(value))]
    return [row for key, item in items for row in _walk(f"{name}.{key}" if name else str(key), item)]


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if not value.is_floating_point() or not value.numel():
        return text
    bad = int((~value.isfinite()).sum())
    size = math.sqrt(float((value.to(torch.float64) ** 2).sum()))
    return f"{text}, norm {size:.4g}" + (f", {bad} NOT FINITE" if bad else "")


def is_message(data: bytes) -> bool:
    """Whether the bytes start like a packed message."""
    return data[: len(MAGIC)] == MAGIC
