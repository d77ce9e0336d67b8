"""Self-description of packed messages: a format as bytes, and read back.

docs/wire-format.md specifies it.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from laconic.formats._cursor import Cursor, WireError, varint
from laconic.formats._groups import GroupFormat
from laconic.formats._kinds import DTYPES, Kind
from laconic.formats.grids import Grid, grid_of
from laconic.kernels.tables import accumulation_dtype

_COLUMNS = ("has_positions", "has_counts", "seeded", "sends_seed", "has_scale", "has_low")
_FLAGS = (*_COLUMNS, "cells", "factors", "adaptive")
"""The flags of a group, from the lowest bit on: fields of :class:`Kind`, and cells and factors.

docs/wire-format.md calls the first six listed, counted, seeded, origin, scales and lowest."""

_LARGEST_NUMBER = (1 << 32) - 1
"""Of a segment in the whole layout: draws are keyed by 32 bits of it."""


def describe(groups: tuple[GroupFormat, ...]) -> bytes:
    """The format of a message in bytes."""
    # Formats compare equal whatever the segments' numbers in the whole layout, which a seed needs.
    return _describe(groups, tuple(one.table.numbers for one in groups if one.kind.sends_seed))


@lru_cache(maxsize=64)
def _describe(groups: tuple[GroupFormat, ...], numbers: object) -> bytes:  # noqa: ARG001
    return b"".join((varint(len(groups)), *(piece for one in groups for piece in _group(one, groups))))


def _group(one: GroupFormat, groups: Sequence[GroupFormat]) -> Iterator[bytes]:
    yield _kind(one)
    yield varint(one.segments)
    before = -1
    for s, numel in enumerate(one.numels):
        if len(groups) > 1:
            yield varint(one.places[s] - before - 1)
            before = one.places[s]
        yield varint(numel)
        if one.kind.has_positions:
            yield varint(one.kept[s])
        if one.cells is not None:
            yield varint(one.cells[s][0]) + varint(one.cells[s][1])
        if one.factors is not None:
            yield struct.pack("<d", one.factors[s])
        if one.kind.sends_seed:
            yield varint(one.table.numbers[s])


def _kind(one: GroupFormat) -> bytes:
    kind = one.kind
    cells, factors = one.cells is not None, one.factors is not None
    values = [getattr(kind, name) for name in _COLUMNS]
    flags = sum(value << i for i, value in enumerate((*values, cells, factors, kind.adaptive)))
    tag = 0 if kind.grid is None else kind.grid.tag
    out = bytearray(struct.pack("<HBB", flags, DTYPES.index(kind.dtype), tag))
    if kind.grid is not None:
        parameters = kind.grid.parameters
        out += varint(len(parameters)) + struct.pack(f"<{len(parameters)}d", *parameters)
    if kind.has_scale:
        out += varint(kind.block or 0)
    return bytes(out)


def read_description(cursor: Cursor, max_d: int) -> tuple[GroupFormat, ...]:
    """The formats of the groups that stand at the cursor.

    Raises:
        WireError: where there are none, they contradict themselves or each other, or the vector is longer
            than ``max_d``.
    """
    groups: list[_Columns] = []
    total = 0
    count = _count(cursor, "the number of groups")
    for number in range(count):
        groups.append(_read_group(cursor, f"group {number}", count > 1, total, max_d))
        total += sum(groups[-1].numels)
    places = sorted(
        (place, numel) for one in groups for place, numel in zip(one.places, one.numels, strict=True)
    )
    if any(place != expected for expected, (place, _) in enumerate(places)):
        raise WireError("the groups' segments do not take each place of the layout once")
    starts, start = [], 0
    for _, numel in places:
        starts.append(start)
        start += numel
    return tuple(_format(one, starts) for one in groups)


@dataclass
class _Columns:
    """What a description says of a group."""

    kind: Kind
    numels: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    cells: list[tuple[int, int]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def _format(one: _Columns, starts: Sequence[int]) -> GroupFormat:
    return GroupFormat(
        kind=one.kind,
        numels=tuple(one.numels),
        kept=tuple(one.kept),
        places=tuple(one.places),
        starts=tuple(starts[place] for place in one.places),
        cells=tuple(one.cells) or None,
        factors=tuple(one.factors) or None,
        numbers=tuple(one.numbers or one.places),
    )


def _count(cursor: Cursor, what: str) -> int:
    count = cursor.varint(what)
    if not 1 <= count <= cursor.left:
        raise WireError(f"{what} is {count}, but {cursor.left} bytes are left")
    return count


def _read_group(cursor: Cursor, name: str, placed: bool, total: int, max_d: int) -> _Columns:
    kind, celled, factored = _read_kind(cursor, name)
    one = _Columns(kind)
    largest = torch.finfo(accumulation_dtype(kind.dtype)).max
    place = -1
    for s in range(_count(cursor, f"the number of {name}'s segments")):
        place += 1 + (cursor.varint("the place of a segment") if placed else 0)
        d = cursor.varint("the length of a segment")
        k = cursor.varint("the number of columns of a segment") if kind.has_positions else d
        total += d
        if d < 1 or k > d:
            raise WireError(f"segment {s} of {name} keeps {k} of {d} coordinates")
        if total > max_d:
            raise WireError(f"the vector has at least {total} elements, more than max_d = {max_d}")
        one.places.append(place)
        one.numels.append(d)
        one.kept.append(k)
        if celled:
            one.cells.append(_read_cells(cursor, d, k, f"segment {s} of {name}"))
        if factored:
            (factor,) = cursor.number("<d", "a factor")
            if not abs(factor) <= largest:
                raise WireError(f"a factor of {factor} is not finite in the dtype of {name}")
            one.factors.append(float(factor))
        if kind.sends_seed:
            one.numbers.append(cursor.varint("the number of a segment"))
            if one.numbers[-1] > _LARGEST_NUMBER:
                raise WireError(f"segment {s} of {name} has the number {one.numbers[-1]}, beyond 32 bits")
    if factored and all(factor == 1.0 for factor in one.factors):
        raise WireError(f"the factors of {name} are all 1, and need not travel")
    return one


def _read_cells(cursor: Cursor, d: int, k: int, name: str) -> tuple[int, int]:
    length, count = cursor.varint("the length of a cell"), cursor.varint("the count of a cell")
    if not 1 <= count <= length <= d:
        raise WireError(f"{name} keeps {count} of {length} coordinates of each cell, of {d} in all")
    before = -(-d // length) - 1
    if not before * count <= k <= before * count + min(count, d - before * length):
        raise WireError(f"{name} cannot keep {k} of {d} with {count} in each {length}")
    return length, count


def _read_kind(cursor: Cursor, name: str) -> tuple[Kind, bool, bool]:
    """The kind, and whether cells and factors follow."""
    bits, dtype_code, tag = map(int, cursor.number("<HBB", f"the kind of {name}"))
    if bits >> len(_FLAGS):
        raise WireError(f"{name} has unknown flags ({bits:#06x})")
    if dtype_code >= len(DTYPES):
        raise WireError(f"{name} has an unknown dtype ({dtype_code:#04x})")
    flags = {flag for i, flag in enumerate(_FLAGS) if bits >> i & 1}
    dtype = DTYPES[dtype_code]
    grid = _read_grid(cursor, tag)
    block = cursor.varint("the columns a scale") if "has_scale" in flags else 0
    positions = flags & {"has_counts", "seeded", "sends_seed", "cells", "adaptive"}
    if (
        (positions and "has_positions" not in flags)
        or ("sends_seed" in flags and ("seeded" not in flags or flags & {"has_counts", "adaptive"}))
        or ("has_low" in flags and "has_scale" not in flags)
        or ("has_scale" in flags and grid is None)
    ):
        raise WireError(f"the flags {bits:#06x} of {name} contradict each other")
    if grid is not None and dtype not in DTYPES[:2]:
        raise WireError(f"the codes of {name} stand for float32 or float64 numbers, not for {dtype}")
    kind = Kind(
        dtype, grid=grid, block=block or None, **{flag: flag in flags for flag in (*_COLUMNS, "adaptive")}
    )
    return kind, "cells" in flags, "factors" in flags


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
