"""The description by which a packed message is understood without knowing its compressor."""

import math

from laconic.grids import Grid, grid_of
from laconic.layout import RULES, Layout, Segment
from laconic.specs import DTYPES, Kind, PartSpec, varint
from laconic.wire._cursor import Cursor
from laconic.wire._errors import WireError


def read_description(cursor: Cursor, max_d: int) -> tuple[PartSpec, ...]:
    """The structure that stands at the cursor.

    Raises:
        WireError: where it is none, or its vectors are longer than ``max_d``.
    """
    kinds = [_read_kind(cursor) for _ in range(_count(cursor, "the number of kinds"))]
    if len(set(kinds)) < len(kinds):
        raise WireError("the description lists a kind of segment twice")
    specs = []
    total = 0
    for number in range(_count(cursor, "the number of segments")):
        spec = _read_part(cursor, kinds, number)
        total += spec.d
        if total > max_d:
            raise WireError(f"the vector has at least {total} elements, more than max_d = {max_d}")
        specs.append(spec)
    if [s.kind for s in specs] and list(dict.fromkeys(s.kind for s in specs)) != kinds:
        raise WireError("the kinds of segments are not listed in the order of their first use")
    return tuple(specs)


def _count(cursor: Cursor, what: str) -> int:
    count = cursor.varint(what)
    if not 1 <= count <= cursor.left:
        raise WireError(f"{what} is {count}, but {cursor.left} bytes are left")
    return count


def _read_part(cursor: Cursor, kinds: list[Kind], number: int) -> PartSpec:
    index = cursor.varint(f"the kind of segment {number}") if len(kinds) > 1 else 0
    if index >= len(kinds):
        raise WireError(f"segment {number} is of kind {index}, but there are {len(kinds)}")
    kind = kinds[index]
    d = cursor.varint(f"the length of segment {number}")
    k = cursor.varint(f"the number of places of segment {number}") if kind.listed else d
    if d < 1 or k > d:
        raise WireError(f"segment {number} keeps {k} of {d} coordinates")
    spec = PartSpec(d, k, kind)
    if kind.cells is not None:
        length, count = kind.cells
        before = -(-d // length) - 1
        if not before * count <= k <= before * count + min(count, d - before * length):
            raise WireError(f"segment {number} cannot keep {k} of {d} with {count} in each {length}")
    return spec


def _read_kind(cursor: Cursor) -> Kind:
    flags, second = cursor.take(2, "a kind of segment").tolist()
    listed, counted, seeded, origin, scale, low, scaled, adaptive = (bool(flags >> i & 1) for i in range(8))
    dtype, celled, tag = DTYPES[second & 3], bool(second & 4), second >> 3
    factor = 1.0
    if scaled:
        (factor,) = cursor.number("<d", "a factor")
        if factor == 1.0 or not math.isfinite(factor):
            raise WireError(f"a factor of {factor} does not travel")
    cells = (cursor.varint("the length of a cell"), cursor.varint("the count of a cell")) if celled else None
    grid = _read_grid(cursor, tag)
    block = cursor.varint("the places a scale") if scale else 0
    if (
        (counted or seeded or origin or celled or adaptive) > listed
        or origin > seeded
        or (origin and (counted or adaptive))
    ):
        raise WireError(f"the flags {flags:#04x} of a kind of segment contradict each other")
    if cells is not None and not 1 <= cells[1] <= cells[0]:
        raise WireError(f"a cell keeps {cells[1]} of {cells[0]} coordinates")
    if low > scale or (scale and (grid is None or dtype not in DTYPES[:2])):
        raise WireError(f"the flags {flags:#04x} of a kind of segment promise scales without codes")
    if grid is not None and dtype not in DTYPES[:2]:
        raise WireError(f"codes stand for float32 or float64 numbers, not for {dtype}")
    return Kind(
        dtype, listed, counted, seeded, origin, cells, grid, scale, low, block or None, factor, adaptive
    )


def _read_grid(cursor: Cursor, tag: int) -> Grid | None:
    if tag == 0:
        return None
    count = cursor.varint("the number of a grid's parameters")
    if 8 * count > cursor.left:
        raise WireError(f"a grid has {count} parameters, but {cursor.left} bytes are left")
    try:
        return grid_of(tag, tuple(float(p) for p in cursor.number(f"<{count}d", "a grid")))
    except (ValueError, OverflowError) as problem:
        raise WireError(str(problem)) from None


def name_layout(layout: Layout) -> bytes:
    """Names, shapes and rules of a layout in bytes."""
    out = bytearray(varint(len(layout.segments)))
    for segment in layout.segments:
        name = segment.name.encode()
        out += varint(len(name)) + name + varint(len(segment.shape))
        for side in segment.shape:
            out += varint(side)
        out.append(RULES.index(segment.rule))
    return bytes(out)


def read_layout(cursor: Cursor, specs: tuple[PartSpec, ...]) -> Layout:
    """The layout at the cursor, once it is known to fit the structure."""
    count = cursor.varint("the number of names")
    if count != len(specs):
        raise WireError(f"the message names {count} segments, but has {len(specs)}")
    segments: list[Segment] = []
    offset = 0
    for spec in specs:
        name = cursor.take(cursor.varint("the length of a name"), "a name").tobytes()
        sides = cursor.varint("the number of dimensions")
        shape = tuple(cursor.varint("a shape") for _ in range(min(sides, cursor.left + 1)))
        (rule,) = cursor.take(1, "a rule").tolist()
        try:
            segment = Segment(name.decode(), shape, offset, RULES[min(rule, len(RULES) - 1)])
        except UnicodeDecodeError:
            raise WireError(f"the name {name!r} is not UTF-8") from None
        if rule >= len(RULES) or segment.numel != spec.d:
            raise WireError(f"segment {segment.name!r} of shape {shape} does not have {spec.d} elements")
        segments.append(segment)
        offset = segment.end
    try:
        return Layout(tuple(segments))
    except ValueError as problem:
        raise WireError(str(problem)) from None
