"""What is known of a part before there is data: its structure, which decides its bytes."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from laconic.grids import Grid

if TYPE_CHECKING:
    from laconic.messages import Part

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes of numbers, by their code on the wire."""


@dataclass(frozen=True)
class Kind:
    """What parts of unlike lengths may have in common; the fields are those of ``Part``.

    Args:
        dtype: dtype of the numbers; the accumulation dtype where they are codes.
        listed: whether positions are kept (else every coordinate is).
        counted: whether the number of places used varies by message.
        seeded: whether the positions follow from shared randomness.
        origin: whether the part says from which draw, so that a seed travels and not positions.
        cells: (length, count): the first ``count`` positions lie in [0, length), the next in
            [length, 2 length), and so on; None where positions lie anywhere.
        grid: the levels of codes, or None.
        scale: whether there are scales, one for each block of ``block`` places, or one for all.
        low: whether there are as many lowest magnitudes.
        block: places a scale; None: all.
        factor: what decoded numbers are multiplied by.
        adaptive: whether positions travel in blocks that adapt to their density, so that the size varies.
    """

    dtype: torch.dtype
    listed: bool = False
    counted: bool = False
    seeded: bool = False
    origin: bool = False
    cells: tuple[int, int] | None = None
    grid: Grid | None = None
    scale: bool = False
    low: bool = False
    block: int | None = None
    factor: float = 1.0
    adaptive: bool = False

    @cached_property
    def encoded(self) -> bytes:
        """The kind as it stands in a message that describes itself; see docs/wire-format.md."""
        flags = (self.listed, self.counted, self.seeded, self.origin, self.scale, self.low)
        head = sum(flag << i for i, flag in enumerate(flags))
        head |= (self.factor != 1.0) << 6 | self.adaptive << 7
        tag = 0 if self.grid is None else self.grid.tag
        out = bytearray((head, DTYPES.index(self.dtype) | (self.cells is not None) << 2 | tag << 3))
        if self.factor != 1.0:
            out += struct.pack("<d", self.factor)
        if self.cells is not None:
            out += varint(self.cells[0]) + varint(self.cells[1])
        if self.grid is not None:
            parameters = self.grid.parameters
            out += varint(len(parameters)) + struct.pack(f"<{len(parameters)}d", *parameters)
        if self.scale:
            out += varint(self.block or 0)
        return bytes(out)


@dataclass(frozen=True)
class PartSpec:
    """The structure of one part: its kind, the segment's length d and the number of places k."""

    d: int
    k: int
    kind: Kind

    @property
    def scales(self) -> int:
        """Number of scales."""
        if not self.kind.scale:
            return 0
        return 1 if self.kind.block is None else -(-self.k // self.kind.block)


def adapted(spec: PartSpec) -> PartSpec:
    """The same structure, with positions that travel in blocks that adapt to their density."""
    if not spec.kind.listed or spec.kind.origin:
        return spec
    return replace(spec, kind=replace(spec.kind, adaptive=True))


def spec_of(part: "Part") -> PartSpec:
    """The structure of a part."""
    kind = Kind(
        dtype=part.dtype,
        listed=part.positions is not None,
        counted=part.count is not None,
        seeded=part.seeded,
        origin=part.origin is not None,
        cells=part.cells,
        grid=part.grid,
        scale=part.scale is not None,
        low=part.low is not None,
        block=part.block,
        factor=part.factor,
    )
    return PartSpec(part.d, part.k, kind)


def varint(number: int) -> bytes:
    """A non-negative number, seven bits a byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def describe(specs: Iterable[PartSpec]) -> bytes:
    """The structure of a message in bytes: its kinds, then kind, d and k of each part."""
    specs = tuple(specs)
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(spec.kind for spec in specs))}
    return b"".join(_pieces(specs, kinds))


def _pieces(specs: tuple[PartSpec, ...], kinds: dict[Kind, int]) -> Iterator[bytes]:
    yield varint(len(kinds))
    for kind in kinds:
        yield kind.encoded
    yield varint(len(specs))
    for spec in specs:
        if len(kinds) > 1:
            yield varint(kinds[spec.kind])
        yield varint(spec.d)
        if spec.kind.listed:
            yield varint(spec.k)
