"""The names, shapes and rules of a layout as bytes, for messages in files."""

from laconic.formats import MessageFormat
from laconic.formats._cursor import Cursor, WireError, varint
from laconic.layout import RULES, Layout, Segment


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


def read_layout(cursor: Cursor, found: MessageFormat) -> Layout:
    """The layout at the cursor, once it is known to fit the message's format."""
    count = cursor.varint("the number of names")
    if count != found.segments:
        raise WireError(f"the message names {count} segments, but has {found.segments}")
    segments: list[Segment] = []
    offset = 0
    for one in found.segment_formats:
        name = cursor.take(cursor.varint("the length of a name"), "a name").tobytes()
        sides = cursor.varint("the number of dimensions")
        shape = tuple(cursor.varint("a shape") for _ in range(min(sides, cursor.left + 1)))
        (rule,) = cursor.take(1, "a rule").tolist()
        try:
            segment = Segment(name.decode(), shape, offset, RULES[min(rule, len(RULES) - 1)])
        except UnicodeDecodeError:
            raise WireError(f"the name {name!r} is not UTF-8") from None
        if rule >= len(RULES) or segment.numel != one.d:
            raise WireError(f"segment {segment.name!r} of shape {shape} does not have {one.d} elements")
        segments.append(segment)
        offset = segment.end
    try:
        return Layout(tuple(segments))
    except ValueError as problem:
        raise WireError(str(problem)) from None
