"""What a file holds: a packed message, or a checkpoint."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.layout import Layout
from laconic.messages import Message
from laconic.sizes import FRAME_BYTES, base_bytes, position_form, symbol_bits
from laconic.specs import PartSpec, describe, spec_of
from laconic.wire._cursor import Cursor
from laconic.wire._describe import read_description, read_layout
from laconic.wire._frame import MAGIC, Flags, Frame, as_bytes, frame_of
from laconic.wire._unpack import unpack


@dataclass(frozen=True)
class SegmentReport:
    """What is known of one segment of a packed message.

    Args:
        name: its name, where the message carries names.
        shape: likewise.
        d: its length.
        kept: places in use.
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
    message = unpack(buffer, max_d=max_d)
    frame = frame_of(data)
    cursor = Cursor(data, FRAME_BYTES)
    specs = read_description(cursor, max_d)
    layout = read_layout(cursor, specs) if Flags.NAMED in frame.flags else None
    return _report(frame, message, specs, layout)


def _report(
    frame: Frame, message: Message, specs: tuple[PartSpec, ...], layout: Layout | None
) -> MessageReport:
    segments = []
    for number, (part, spec) in enumerate(zip(message.parts, specs, strict=True)):
        used = part.k if part.count is None else int(part.count)
        magnitude = part.decode()[:used].abs()
        nonzero = magnitude[magnitude > 0]
        segment = None if layout is None else layout.segments[number]
        segments.append(
            SegmentReport(
                name=None if segment is None else segment.name,
                shape=None if segment is None else segment.shape,
                d=part.d,
                kept=used,
                positions=_positions(spec, used),
                values=_values(spec),
                smallest=float(nonzero.min()) if nonzero.numel() else None,
                largest=float(magnitude.max()) if magnitude.numel() else None,
            )
        )
    kept = sum(segment.kept for segment in segments)
    return MessageReport(
        nbytes=frame.length,
        version=1,
        round=frame.round,
        digest=frame.digest,
        flags=tuple(str(flag.name).lower() for flag in Flags if flag in frame.flags),
        d=message.d,
        kept=kept,
        bits_per_kept=8 * frame.length / kept if kept else None,
        bits_per_coordinate=8 * frame.length / message.d,
        entropy_bits=int(message.bits("entropy")),
        description_nbytes=len(describe(map(spec_of, message.parts))),
        segments=tuple(segments),
    )


def _positions(spec: PartSpec, used: int) -> str:
    kind = spec.kind
    if not kind.listed:
        return "all"
    if kind.origin:
        return "seed"
    form = position_form(spec.d, used, kind.cells)[0]
    return f"adaptive or {form}" if kind.adaptive else form


def _values(spec: PartSpec) -> str:
    kind = spec.kind
    if kind.grid is None:
        return str(kind.dtype).removeprefix("torch.")
    shared, bits = symbol_bits(kind.grid.symbols(kind.dtype))
    width = f"{bits} bits" if shared == 1 else f"{shared} to a byte"
    name = type(kind.grid).__name__
    scales = f", {spec.scales} scales" if kind.scale else ""
    base = f", base of {base_bytes(kind.grid, kind.dtype)} bytes" if base_bytes(kind.grid, kind.dtype) else ""
    return f"{name} {width}{scales}{base}"


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
