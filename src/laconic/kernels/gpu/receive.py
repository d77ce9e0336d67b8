"""Addition of nodes' columns to vectors in ascending order of nodes, and its undoing.

One launch a node and group: it decodes, multiplies and adds. Launches follow each other on a stream, and
within a node the positions are distinct, so no two programs touch one number: no sum depends on order.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

from functools import lru_cache

import torch
import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._numbers import signed, widened
from laconic.kernels.gpu._tables import TILE, integers, ready, starts_of, tiles_of
from laconic.kernels.gpu.segments import copy_segments, tile_of
from laconic.kernels.tables import Vectors, bounds_of


def add_nodes(memory, nodes, weights, table, levels, block, out, before, commit, dtype):
    """As ``laconic.kernels.receive.add_nodes``, but nothing is checked: it would make the host wait.

    A position outside its segment, or a code without a level, adds nothing.
    """
    target = _target(memory, table, out, commit, dtype)
    device = target.array.device
    tiles, owned = tiles_of(table.kept_array, device), integers(table.blocks(block)[:-1], device)
    common = (
        target.array, starts_of(target, device), tiles, integers(table.kept_array, device),
        integers(table.bounds[:-1], device), integers(table.numel_array, device), owned,
    )  # fmt: skip
    factors = _numbers(tuple(weights), dtype, device)
    for i, node in enumerate(nodes):
        own = None if node.factors is None else _numbers(tuple(node.factors.tolist()), dtype, device)
        columns = [
            factors if each is None else each
            for each in (node.positions, levels, node.scale, node.low, own, before)
        ]
        used = common[3] if node.counts is None else integers(node.counts, device)
        # Of dense columns all nodes change one number, so the first one's record is all that is needed.
        kept = None if before is None or (node.positions is None and i) else before
        launch(
            _add, len(tiles), *common, used, node.values.contiguous(), *columns, factors,
            i, table.columns if node.positions is not None else 0,
            0 if levels is None else len(levels) // 2, block or 1 << 30,
            SPARSE=node.positions is not None, CODES=levels is not None, SCALED=node.scale is not None,
            LOW=node.low is not None, FACTORS=own is not None, RECORDS=kept is not None, TILE=TILE,
        )  # fmt: skip
    if out is not None and target is not out:
        copy_segments(out, target, table.numel_array)


def undo_nodes(memory, nodes, table, before):
    """As ``laconic.kernels.receive.undo_nodes``."""
    device = memory.array.device
    tiles = tiles_of(table.kept_array, device)
    sparse = nodes[0].positions is not None
    for i in reversed(range(len(nodes) if sparse else 1)):
        used = table.kept_array if nodes[i].counts is None else nodes[i].counts
        launch(
            _restore, len(tiles), memory.array, starts_of(memory, device), tiles, integers(used, device),
            integers(table.bounds[:-1], device), integers(table.numel_array, device),
            nodes[i].positions if sparse else before, before, i * table.columns,
            SPARSE=sparse, TILE=TILE,
        )  # fmt: skip


def _target(memory, table, out, commit, dtype):
    """Where sums are formed: the memory, ``out``, or new room for both."""
    if memory is not None and commit:
        return memory
    if out is not None and out.dtype == dtype:
        target = out
    else:
        like = out or memory
        bounds = bounds_of(table.numel_array)
        target = Vectors.flat(
            torch.empty(int(bounds[-1]), dtype=dtype, device=like.array.device), bounds[:-1]
        )
    if memory is not None:
        copy_segments(target, memory, table.numel_array)
        return target
    device = target.array.device
    tiles = tiles_of(table.numel_array, device)
    launch(
        _clear, len(tiles), target.array, starts_of(target, device), tiles,
        integers(table.numel_array, device), TILE=TILE,
    )  # fmt: skip
    return target


@lru_cache(maxsize=256)
def _numbers(numbers, dtype, device):
    return ready(torch.tensor(numbers, dtype=torch.float64, device="cpu").to(dtype).to(device))


@triton.jit
def _clear(out, starts, tiles, numels, TILE: tl.constexpr):
    """Zeros in one tile."""
    segment, place, mask = tile_of(tiles, numels, TILE)
    zero = tl.zeros((TILE,), dtype=out.dtype.element_ty)
    tl.store(out + tl.load(starts + segment) + place, zero, mask=mask)


@triton.jit(do_not_specialize=["node", "stride", "middle", "block"])
def _add(
    memory, starts, tiles, kept, bounds, numels, owned, used, values, positions, levels, scales, lows,
    factors, before, weights, node, stride, middle, block,
    SPARSE: tl.constexpr, CODES: tl.constexpr, SCALED: tl.constexpr, LOW: tl.constexpr,
    FACTORS: tl.constexpr, RECORDS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One node's numbers of a tile of columns."""
    segment, place, mask = tile_of(tiles, kept, TILE)
    mask = mask & (place < tl.load(used + segment))
    column = tl.load(bounds + segment) + place
    value = tl.load(values + column, mask=mask, other=0)
    kind = memory.dtype.element_ty
    if CODES:
        code = value.to(tl.int32)
        size = tl.abs(code)
        mask = mask & (size <= middle)
        if LOW:
            number = tl.load(levels + middle + size, mask=mask, other=0.0).to(kind)
        else:
            number = tl.load(levels + middle + code, mask=mask, other=0.0).to(kind)
        own = tl.load(owned + segment) + place // block
        if SCALED:
            number = number * tl.load(scales + own, mask=mask, other=0.0).to(kind)
        if LOW:
            number = signed(tl.load(lows + own, mask=mask, other=0.0).to(kind) + number, code < 0)
    else:
        number = widened(value).to(kind)
    if FACTORS:
        number = number * tl.load(factors + segment)
    number = number * tl.load(weights + node)
    position = place
    if SPARSE:
        position = tl.load(positions + column, mask=mask, other=0)
        mask = mask & (position >= 0) & (position < tl.load(numels + segment))
    target = memory + tl.load(starts + segment) + position
    held = tl.load(target, mask=mask, other=0.0)
    if RECORDS:
        tl.store(before + node.to(tl.int64) * stride + column, held, mask=mask)
    tl.store(target, held + number, mask=mask)


@triton.jit(do_not_specialize=["first"])
def _restore(
    memory, starts, tiles, used, bounds, numels, positions, before, first,
    SPARSE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """What stood in the places of one tile of columns."""
    segment, place, mask = tile_of(tiles, used, TILE)
    column = tl.load(bounds + segment) + place
    position = place
    if SPARSE:
        position = tl.load(positions + column, mask=mask, other=0)
        mask = mask & (position >= 0) & (position < tl.load(numels + segment))
    held = tl.load(before + first + column, mask=mask, other=0.0)
    tl.store(memory + tl.load(starts + segment) + position, held, mask=mask)
