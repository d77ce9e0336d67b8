"""Adding what nodes kept to a vector, nodes in ascending order, weight first: fl(out + fl(w v)).

No sum depends on the order of programs. :func:`scatter_add_` takes one launch a node, and launches on a
stream follow each other; within a node the positions are distinct, so no two programs touch one number.
:func:`scatter_add_into` takes one launch for all: a program owns a stretch of the vector, adds the nodes to
it one after another, and waits for all its threads between them.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch
import triton
import triton.language as tl

from laconic.kernels._gpu._launch import launch
from laconic.kernels._gpu._numbers import narrowed, widened

_TILE = 4096


def scatter_add_(out, positions, values, weights=None):
    """As ``laconic.kernels.scatter_add_``, with a weight for each node where weights are given.

    Args:
        out: (..., d), float32 or float64, rows contiguous.
        positions: int64 (..., n, k) in [0, d), distinct along the last dimension, in any order.
        values: (..., n, k), of out's dtype or narrower.
        weights: (n,), or None for ones.

    Raises:
        ValueError: where out's rows do not lie one after another.
    """
    rows = _rows(out)
    nodes, k = positions.shape[-2:]
    places, numbers = (t.reshape(-1, nodes, k).contiguous() for t in (positions, values))
    factors = _factors(weights, nodes, out)
    tiles = triton.cdiv(k, 1024)
    for node in range(nodes):
        launch(
            _add, len(rows) * tiles, rows, places, numbers, factors,
            rows.stride(0), node, nodes, k, tiles, WEIGHTED=weights is not None, TILE=1024,
        )  # fmt: skip


def scatter_add_into(out, positions, values, weights, destination, tile=_TILE):
    """Adds n nodes' numbers to a vector, and writes the vector to a tensor of another dtype in the same pass.

    Args:
        out: (d,), float32 or float64, contiguous; changed in place.
        positions: int64 (n, k) in [0, d), ascending along the last dimension.
        values: (n, k), of out's dtype or narrower.
        weights: (n,), or None for ones.
        destination: (d,), contiguous, any floating-point dtype: ``out.to(destination.dtype)`` afterwards.
        tile: numbers a program; the result does not depend on it.

    Raises:
        ValueError: where out and destination are not contiguous vectors of one length.
    """
    if out.dim() != 1 or destination.shape != out.shape:
        raise ValueError(
            f"out and destination must be (d,), got {tuple(out.shape)}, {tuple(destination.shape)}"
        )
    if not (out.is_contiguous() and destination.is_contiguous()):
        raise ValueError("out and destination must be contiguous")
    nodes, k = positions.shape
    tiles = triton.cdiv(len(out), tile)
    places = positions.contiguous()
    starts = torch.arange(0, (tiles + 1) * tile, tile, device=out.device).expand(nodes, -1).contiguous()
    borders = torch.searchsorted(places, starts)
    launch(
        _add_tile, tiles, out.detach(), places, values.contiguous(), _factors(weights, nodes, out), borders,
        destination.detach(), len(out), nodes, k, tiles, WEIGHTED=weights is not None, TILE=tile, CHUNK=128,
    )  # fmt: skip


def _rows(out):
    if out.dim() == 1:
        out = out.unsqueeze(0)
    if out.stride(-1) != 1 and out.shape[-1] > 1:
        raise ValueError("out's rows must be contiguous")
    return out.detach().view(-1, out.shape[-1])


def _factors(weights, nodes, out):
    if weights is None:
        return torch.empty(nodes, dtype=out.dtype, device=out.device)
    return torch.as_tensor(weights, dtype=out.dtype, device=out.device).contiguous()


@triton.jit(do_not_specialize=["node", "nodes", "tiles"])
def _add(
    out, positions, values, weights, stride, node, nodes, k, tiles,
    WEIGHTED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One node's numbers."""
    program = tl.program_id(0).to(tl.int64)
    row, first = program // tiles, program % tiles * TILE
    i = first + tl.arange(0, TILE)
    mask = i < k
    at = (row * nodes + node) * k + i
    position = tl.load(positions + at, mask=mask, other=0)
    target = out + row * stride + position
    held = tl.load(target, mask=mask, other=0.0)
    number = widened(tl.load(values + at, mask=mask, other=0.0)).to(held.dtype)
    if WEIGHTED:
        number = number * tl.load(weights + node)
    tl.store(target, held + number, mask=mask)


@triton.jit(do_not_specialize=["nodes", "tiles"])
def _add_tile(
    out, positions, values, weights, borders, destination, d, nodes, k, tiles,
    WEIGHTED: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """All nodes' numbers in one tile, then the tile in the destination's dtype."""
    tile = tl.program_id(0).to(tl.int64)
    for node in range(nodes):
        border = borders + tl.cast(node, tl.int64) * (tiles + 1) + tile
        begin, end = tl.load(border), tl.load(border + 1)
        for start in range(begin, end, CHUNK):
            i = start + tl.arange(0, CHUNK)
            mask = i < end
            at = tl.cast(node, tl.int64) * k + i
            position = tl.load(positions + at, mask=mask, other=0)
            held = tl.load(out + position, mask=mask, other=0.0)
            number = widened(tl.load(values + at, mask=mask, other=0.0)).to(held.dtype)
            if WEIGHTED:
                number = number * tl.load(weights + node)
            tl.store(out + position, held + number, mask=mask)
        # The next node may add to the same numbers, from other threads.
        tl.debug_barrier()
    place = tile * TILE + tl.arange(0, TILE)
    mask = place < d
    total = tl.load(out + place, mask=mask, other=0.0)
    tl.store(destination + place, narrowed(total, destination.dtype.element_ty), mask=mask)
