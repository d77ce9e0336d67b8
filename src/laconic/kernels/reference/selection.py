"""Exact selection of the largest magnitudes (Top-k), and the memory's update by what is kept."""

from collections.abc import Iterator

import torch
from torch import Tensor

from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.tables import Vectors


def top_k_positions_reference(x: Tensor, k: int) -> Tensor:
    """The definition of :func:`laconic.kernels.top_k_positions`."""
    d = x.shape[-1]
    if k == d:
        return torch.arange(d, device=x.device).expand(x.shape)
    magnitude = _magnitude_bits(x)
    if k == 1:
        return magnitude.argmax(dim=-1, keepdim=True)  # documented to be the first of several maxima
    threshold = magnitude.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    above = magnitude > threshold
    tied = magnitude == threshold
    room = k - above.sum(dim=-1, keepdim=True)
    kept = above | (tied & (tied.cumsum(dim=-1) <= room))
    return kept.nonzero()[:, -1].reshape(*x.shape[:-1], k)


def _magnitude_bits(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        return x.contiguous().view(torch.int64) & 0x7FFFFFFFFFFFFFFF
    if x.dtype == torch.float32:
        return x.contiguous().view(torch.int32) & 0x7FFFFFFF
    return x.contiguous().view(torch.int16) & 0x7FFF


def top_k_segments_reference(x: Tensor, memory: Tensor | None, cuts: SelectionTable) -> tuple[Tensor, Tensor]:
    """The definition of :func:`laconic.kernels.top_k_segments`."""
    x = x.detach()
    difference = x if memory is None else x.to(memory.dtype) - memory.detach()
    positions, values = [x.new_empty(0, dtype=torch.int64)], [difference[:0]]
    for segment, start in enumerate(cuts.starts.tolist()):
        numbers = difference[start : start + int(cuts.lengths[segment])]
        for lo, hi, k in _blocks(cuts, segment):
            here = top_k_positions_reference(numbers[lo:hi], k) + lo
            positions.append(here)
            values.append(numbers[here])
    return torch.cat(positions), torch.cat(values)


def select_segments_reference(
    x: Vectors | None,
    memory: Vectors | None,
    cuts: SelectionTable,
    move: str = "none",
    out: Vectors | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The definition of :func:`laconic.kernels.select_segments`."""
    positions, values, before = [], [], []
    for segment in range(cuts.lengths.size):
        length = int(cuts.lengths[segment])
        own, held, written = (
            None if each is None else each.segment(segment, length) for each in (x, memory, out)
        )
        numbers = _numbers(own, held, move)
        if written is not None:
            numbers = written.copy_(numbers)
        places = torch.cat(
            [top_k_positions_reference(numbers[lo:hi], k) + lo for lo, hi, k in _blocks(cuts, segment)]
        )
        kept = numbers[places]
        positions.append(places)
        values.append(kept)
        moved = held if written is None else written
        if move in ("track", "drain") and moved is not None:
            before.append(moved[places])
            moved[places] = before[-1] + kept if move == "track" else before[-1] - kept
    return torch.cat(positions), torch.cat(values), torch.cat(before) if before else None


def _numbers(x: Tensor | None, memory: Tensor | None, move: str) -> Tensor:
    """What is selected among: x, the memory, x - memory, or memory + x."""
    if x is None or memory is None:
        one = memory if x is None else x
        assert one is not None
        return one
    return memory + x if move in ("sum", "drain") else x.to(memory.dtype) - memory


def _blocks(cuts: SelectionTable, segment: int) -> Iterator[tuple[int, int, int]]:
    """The blocks [lo, hi) of a segment, and how many numbers each keeps."""
    columns = (cuts.lengths, cuts.blocks, cuts.counts, cuts.lasts)
    length, block, count, last = (int(column[segment]) for column in columns)
    for lo in range(0, length, block):
        hi = min(lo + block, length)
        yield lo, hi, count if hi - lo == block else last
