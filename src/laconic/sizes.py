"""How many bits a message takes, counted in three ways.

* ``"wire"``: the length of what :func:`laconic.pack` makes, frame, scales and padding included.
* ``"values"``: the papers' convention. 32 bits a number that is kept (16 for 16-bit numbers), or log2 of the
  number of symbols for its code, and 32 a scale; positions and flags count nothing.
* ``"entropy"``: the information in it. As "values", and log2 C(d, k) bits for the positions unless they
  follow from a shared seed, and one bit for each flag.
"""

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from laconic.messages import Message, Part

Accounting = Literal["wire", "values", "entropy"]

FRAME_BYTES = 20
PART_BYTES = 24
BASE_BYTES = 2


def position_width(d: int) -> int:
    """Bits of one position in [0, d)."""
    return max(1, (d - 1).bit_length())


def code_width(part: "Part") -> int:
    """Bits of one code of a part with a grid."""
    assert part.grid is not None
    return (part.grid.symbols(part.dtype) - 1).bit_length()


def header_bytes(part: "Part") -> int:
    """Bytes by which a packed part describes itself."""
    return PART_BYTES + 8 * (0 if part.grid is None else len(part.grid.parameters))


def message_bits(message: "Message", accounting: Accounting) -> Tensor:
    """Size of each row's message in bits: int64 (...), the message's leading dimensions.

    Raises:
        ValueError: for an unknown accounting.
    """
    count = {"wire": _wire, "values": _values, "entropy": _entropy}.get(accounting)
    if count is None:
        raise ValueError(f"unknown accounting {accounting!r}; use 'wire', 'values' or 'entropy'")
    total: int | Tensor = 8 * FRAME_BYTES if accounting == "wire" else 0
    for part in message.parts:
        total = total + count(part)
    if accounting == "entropy" and message.replaces is not None:
        total = total + 1
    if isinstance(total, Tensor):
        return total.expand(message.batch)
    return torch.full(message.batch, total, dtype=torch.int64)


def _used(part: "Part") -> int | Tensor:
    return part.k if part.count is None else part.count[..., 0]


def _wire(part: "Part") -> int | Tensor:
    k = _used(part)
    if part.grid is None:
        values = k * part.values.element_size()
    else:
        values = _whole_bytes(k * code_width(part))
        if part.grid.window(part.dtype) is not None:
            values = values + BASE_BYTES
        if part.scale is not None:
            values = values + part.scale.element_size()
    positions: int | Tensor = 0
    if part.positions is not None:
        listed, bitmap = _whole_bytes(k * position_width(part.d)), _whole_bytes(part.d)
        positions = listed.clamp(max=bitmap) if isinstance(listed, Tensor) else min(listed, bitmap)
    return (values + positions + header_bytes(part)) * 8


def _values(part: "Part") -> int | Tensor:
    k = _used(part)
    if part.grid is None:
        return k * min(32, 8 * part.values.element_size())
    scale = 0 if part.scale is None else 32
    return _ceil(k * math.log2(part.grid.symbols(part.dtype))) + scale


def _entropy(part: "Part") -> int | Tensor:
    k = _used(part)
    bits: int | Tensor = _values(part)
    if part.grid is not None and part.grid.window(part.dtype) is not None:
        bits = bits + 8 * BASE_BYTES
    if part.count is not None:
        bits = bits + math.ceil(math.log2(part.d + 1))
    if part.positions is None or part.seeded:
        return bits
    return bits + _ceil(_log2_binomial(part.d, k))


def _whole_bytes(bits: "int | Tensor") -> "int | Tensor":
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
