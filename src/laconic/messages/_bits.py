"""The size of a message in bits, by three accountings."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from laconic.formats import GroupFormat, MessageFormat
from laconic.formats.description import describe
from laconic.formats.sizes import FRAME_BYTES, base_bytes, section_bytes, whole_bytes
from laconic.messages._group import Group

Accounting = Literal["wire", "values", "entropy"]


def message_bits(
    groups: Sequence[Group],
    message_format: MessageFormat,
    batch: torch.Size,
    accounting: Accounting,
    *,
    flags: bool,
) -> Tensor:
    """Size of each row's message in bits: int64 (...), the batch.

    Args:
        groups: the message's columns.
        message_format: the message's.
        batch: leading dimensions.
        accounting: "wire", "values" or "entropy".
        flags: whether each segment has a flag.

    Raises:
        ValueError: for an unknown accounting.
    """
    count = {"wire": _wire, "values": _values, "entropy": _entropy}.get(accounting)
    if count is None:
        raise ValueError(f"unknown accounting {accounting!r}; use 'wire', 'values' or 'entropy'")
    total: int | Tensor = 0
    for group in groups:
        total = total + count(group)
    segments = message_format.segments
    if accounting == "wire":
        total = total + 8 * (FRAME_BYTES + len(describe(message_format.groups)))
        total = total + 8 * whole_bytes(segments) * flags
    elif accounting == "entropy" and flags:
        total = total + segments
    if isinstance(total, Tensor):
        return total.expand(batch)
    return torch.full(batch, total, dtype=torch.int64, device="cpu")


def _wire(group: Group) -> "int | Tensor":
    if group.counts is None:
        return 8 * _section_bytes(group.format)
    rows, inverse = np.unique(
        group.counts.reshape(-1, group.format.segments).cpu().numpy(), axis=0, return_inverse=True
    )
    sizes = np.array([8 * section_bytes(group.format, row) for row in rows])[inverse.reshape(-1)]
    return torch.from_numpy(sizes).reshape(group.batch).to(group.counts.device)


@lru_cache(maxsize=256)
def _section_bytes(one: GroupFormat) -> int:
    return section_bytes(one)


def _values(group: Group) -> "int | Tensor":
    one, kind = group.format, group.format.kind
    k = torch.tensor(one.kept, device="cpu") if group.counts is None else group.counts
    if kind.grid is None:
        bits = k * min(32, 8 * kind.dtype.itemsize)
    else:
        bits = torch.ceil(k * math.log2(kind.grid.symbols(kind.dtype))).to(torch.int64)
    total = bits.sum(dim=-1) + 32 * one.scales * (kind.has_scale + kind.has_low)
    return int(total) if group.counts is None else total


def _entropy(group: Group) -> "int | Tensor":
    one, kind = group.format, group.format.kind
    bits = _values(group)
    if kind.grid is not None:
        bits = bits + 8 * one.segments * base_bytes(kind.grid, kind.dtype)
    if kind.has_counts:
        bits = bits + sum(math.ceil(math.log2(numel + 1)) for numel in one.numels)
    if not kind.has_positions or kind.seeded:
        return bits
    if group.counts is None:
        return bits + _position_bits(one)
    d, kept = (
        torch.tensor(one.numels, dtype=torch.float64, device=group.counts.device),
        group.counts.to(torch.float64),
    )
    nats = torch.lgamma(d + 1) - torch.lgamma(kept + 1) - torch.lgamma(d - kept + 1)
    return bits + torch.ceil(nats / math.log(2)).to(torch.int64).sum(dim=-1)


@lru_cache(maxsize=256)
def _position_bits(one: GroupFormat) -> int:
    """Entropy of uniform subsets: the sum of log2 C(d, k) over segments, each rounded up."""
    return sum(map(_log2_binomial, one.numels, one.kept))


def _log2_binomial(d: int, k: int) -> int:
    nats = math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)
    return math.ceil(nats / math.log(2))
