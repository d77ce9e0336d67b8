"""How many bits a message takes, counted in three ways.

* ``"wire"``: the length of what :func:`laconic.pack` makes, frame, description, scales and padding included.
* ``"values"``: the papers' convention. 32 bits a number that is kept (16 for 16-bit numbers), or log2 of the
  number of symbols for its code, and 32 a scale; positions and flags count nothing.
* ``"entropy"``: the information in it. As "values", and log2 C(d, k) bits for the positions unless they
  follow from a shared seed, and one bit for each flag.

Every size on the wire is arithmetic on a part's structure (:class:`laconic.specs.PartSpec`) and, where the
number kept varies, its count.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from laconic.grids import Grid
from laconic.specs import Kind, PartSpec, describe, spec_of

if TYPE_CHECKING:
    from laconic.messages import Message, Part

Accounting = Literal["wire", "values", "entropy"]
Form = Literal["implied", "cells", "elias-fano", "bitmap"]

FRAME_BYTES = 20
ORIGIN_BYTES = 20
COUNT_BYTES = 4


@lru_cache(maxsize=4096)
def low_bits(d: int, k: int) -> int:
    """Elias-Fano's number of low bits: the smallest l >= 0 that minimises ``k l + floor((d - 1) / 2^l)``."""
    return min(range((d - 1).bit_length() + 1), key=lambda low: k * low + ((d - 1) >> low))


def elias_fano_bytes(d: int, k: int) -> tuple[int, int]:
    """Bytes of the low and of the high bits of k positions in [0, d)."""
    low = low_bits(d, k)
    return whole_bytes(k * low), whole_bytes(k + ((d - 1) >> low))


@lru_cache(maxsize=4096)
def position_form(d: int, k: int, cells: tuple[int, int] | None = None) -> tuple[Form, int]:
    """The smallest of the forms in which k ascending positions in [0, d) travel, and its bytes.

    Of equally small ones, the first of: implied (none or all are kept), cells, Elias-Fano, bitmap.
    """
    if k in (0, d):
        return "implied", 0
    forms: list[tuple[int, Form]] = [(sum(elias_fano_bytes(d, k)), "elias-fano"), (whole_bytes(d), "bitmap")]
    if cells is not None:
        forms.insert(0, (whole_bytes(k * cell_width(cells)), "cells"))
    size, form = min(forms, key=lambda pair: pair[0])
    return form, size


def cell_width(cells: tuple[int, int]) -> int:
    """Bits of a position within its cell."""
    return (cells[0] - 1).bit_length()


def seed_pays(d: int, k: int) -> bool:
    """Whether the origin of k drawn positions in [0, d) is smaller than the positions."""
    return position_form(d, k)[1] > ORIGIN_BYTES


def symbol_bits(symbols: int) -> tuple[int, int]:
    """How many symbols share a group, and bits of the group.

    ``(1, ceil(log2 symbols))``, or as many symbols to a byte as fit where that is less: ternary symbols
    travel five to a byte.
    """
    width = (symbols - 1).bit_length()
    shared = 1
    while symbols ** (shared + 1) <= 256:
        shared += 1
    return (shared, 8) if shared > 1 and shared * width > 8 else (1, width)


@lru_cache(maxsize=256)
def base_bytes(grid: Grid, dtype: torch.dtype) -> int:
    """Bytes of the number of the level under a row's span; 0 where the grid's rows span all levels."""
    window = grid.window(dtype)
    if window is None:
        return 0
    return whole_bytes(max(1, (len(grid.levels(dtype)) - window).bit_length()))


def value_bytes(kind: Kind, k: int) -> int:
    """Bytes of k values: numbers, or codes."""
    if kind.grid is None:
        return k * kind.dtype.itemsize
    shared, bits = symbol_bits(kind.grid.symbols(kind.dtype))
    return whole_bytes(-(-k // shared) * bits)


def side_bytes(spec: PartSpec) -> int:
    """Bytes beside positions and values: scales, lowest magnitudes and the base of the codes."""
    kind = spec.kind
    size = spec.scales * (kind.scale + kind.low) * kind.dtype.itemsize
    return size if kind.grid is None else size + base_bytes(kind.grid, kind.dtype)


def section_bytes(spec: PartSpec, count: int | None = None) -> int:
    """Bytes of one part on the wire; with ``count`` places in use, where that varies (None: all).

    Where positions adapt to their density, the most that they can take.
    """
    used = spec.k if count is None else count
    size = side_bytes(spec) + value_bytes(spec.kind, used)
    if spec.kind.counted:
        size += COUNT_BYTES
    if spec.kind.origin:
        return size + ORIGIN_BYTES
    if spec.kind.listed:
        size += position_form(spec.d, used, spec.kind.cells)[1] + spec.kind.adaptive
    return size


def largest_bytes(spec: PartSpec) -> int:
    """Bytes of one part that no message exceeds: its size, where that is fixed."""
    if not spec.kind.counted:
        return section_bytes(spec)
    # No form of positions is larger than the bitmap, whatever the count.
    values = value_bytes(spec.kind, spec.k)
    return side_bytes(spec) + COUNT_BYTES + values + whole_bytes(spec.d) + spec.kind.adaptive


@lru_cache(maxsize=256)
def structure_bytes(specs: tuple[PartSpec, ...]) -> int:
    """Bytes of frame and description, and of every section whose size is fixed."""
    fixed = sum(section_bytes(spec) for spec in specs if not spec.kind.counted)
    return FRAME_BYTES + len(describe(specs)) + fixed


def message_bits(message: "Message", accounting: Accounting) -> Tensor:
    """Size of each row's message in bits: int64 (...), the message's leading dimensions.

    Raises:
        ValueError: for an unknown accounting.
    """
    count = {"wire": _wire, "values": _values, "entropy": _entropy}.get(accounting)
    if count is None:
        raise ValueError(f"unknown accounting {accounting!r}; use 'wire', 'values' or 'entropy'")
    total = count(message.parts)
    if accounting == "entropy" and message.replaces is not None:
        total = total + len(message.parts)
    if accounting == "wire" and message.replaces is not None:
        total = total + 8 * whole_bytes(len(message.parts))
    if isinstance(total, Tensor):
        return total.expand(message.batch)
    return torch.full(message.batch, total, dtype=torch.int64)


def _wire(parts: "Sequence[Part]") -> "int | Tensor":
    specs = tuple(map(spec_of, parts))
    total: int | Tensor = 8 * structure_bytes(specs)
    for part, spec in zip(parts, specs, strict=True):
        if part.count is not None:
            counts, rows = part.count[..., 0].unique(return_inverse=True)  # type: ignore[no-untyped-call]
            sizes = [8 * section_bytes(spec, count) for count in counts.tolist()]
            total = total + torch.tensor(sizes, device=rows.device)[rows]
    return total


def _used(part: "Part") -> "int | Tensor":
    return part.k if part.count is None else part.count[..., 0]


def _values(parts: "Sequence[Part]") -> "int | Tensor":
    return sum(map(_value_bits, parts))


def _value_bits(part: "Part") -> "int | Tensor":
    k = _used(part)
    if part.grid is None:
        return k * min(32, 8 * part.values.element_size())
    beside = sum(tensor.shape[-1] for tensor in (part.scale, part.low) if tensor is not None)
    return _ceil(k * math.log2(part.grid.symbols(part.dtype))) + 32 * beside


def _entropy(parts: "Sequence[Part]") -> "int | Tensor":
    return sum(map(_entropy_bits, parts))


def _entropy_bits(part: "Part") -> "int | Tensor":
    k = _used(part)
    bits: int | Tensor = _value_bits(part)
    if part.grid is not None:
        bits = bits + 8 * base_bytes(part.grid, part.dtype)
    if part.count is not None:
        bits = bits + math.ceil(math.log2(part.d + 1))
    if part.positions is None or part.seeded:
        return bits
    return bits + _ceil(_log2_binomial(part.d, k))


def whole_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return (bits + 7) // 8


def _ceil(x: "float | Tensor") -> "int | Tensor":
    return torch.ceil(x).to(torch.int64) if isinstance(x, Tensor) else math.ceil(x)


def _log2_binomial(d: int, k: "int | Tensor") -> "float | Tensor":
    """Entropy of a uniform k-subset of [0, d), in bits."""
    if isinstance(k, int):
        nats = math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)
        return nats / math.log(2)
    kept = k.to(torch.float64)
    return (math.lgamma(d + 1) - torch.lgamma(kept + 1) - torch.lgamma(d - kept + 1)) / math.log(2)
