"""Exact Top-k of ``|x|`` or ``|fl(x - memory)|`` for all segments of a layout, in a fixed number of launches.

Short blocks and segments are held whole by one program (``_short``). Of long ones:

1. A sample of each segment bounds its k-th magnitude from below (``bound``).
2. One pass over x and memory keeps what reaches the bound: the candidates (``collect``).
3. A radix histogram of the candidates finds the exact k-th magnitude, and how many equal to it are kept
   (``histogram`` and ``narrow``, once for each group of bits).
4. Tiles count what they keep, the counts are summed up, tiles write (``count``, ``scan``,
   ``write``).

Where the sample misled a segment (fewer than k candidates, or more than fit), steps 3 and 4 read all of
its numbers instead; this is decided on the device, so the host never waits. Which positions come out does
not depend on the sample.

Why the result is the same on every run, although programs run in any order: the candidates of one tile lie
together and in order, only where they lie depends on the order, and nothing reads them in that order: a
histogram adds integers, and the last step goes by tiles. Each place of memory is written by one program
(the ranges that an atomic cursor hands out do not overlap), or only added to atomically; every kernel sees
what the one before it wrote, for they run on one stream.

NaN is as good as any number: magnitudes are compared as integers, and all kernels make the same bits of the
same numbers, so as many positions as are wanted are written, all inside their segment.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

from functools import lru_cache

import torch

from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.gpu._candidates import bound, collect, histogram, narrow
from laconic.kernels.gpu._compaction import count, scan, write
from laconic.kernels.gpu._launch import LARGEST_TILE, MAGNITUDE_BITS, launch
from laconic.kernels.gpu._plan import LONG_FIELDS, plan
from laconic.kernels.gpu._short import top_k_short

_TILE = 4096
_SAMPLES = 8192
_CHUNK = 512
_PIECE = 1024
_DIGIT = 11


def top_k_segments(x, memory, cuts, *, salt=0, tile=_TILE, samples=_SAMPLES, short=LARGEST_TILE):
    """As ``laconic.kernels.selection.top_k_segments``; the result depends on neither of the last four.

    Args:
        x: (D,), contiguous, float32, float64, bfloat16 or float16.
        memory: (D,), contiguous, float32 or float64 and at least as wide as x, or None.
        cuts: the segments, or blocks of segments, and how many numbers each keeps.
        salt: not used; a sample is drawn at fixed places.
        tile: numbers a program.
        samples: numbers that bound a long stretch's k-th magnitude.
        short: length up to which a program holds a stretch whole.

    Returns:
        int64 positions (cuts.total,), counted from the start of their segment, ascending in each; and the
        numbers there, in memory's dtype or else in x's.

    Raises:
        TypeError: for a memory narrower than x, or neither float32 nor float64.
        ValueError: where x and memory are not contiguous vectors of one length, or a segment ends after D.
    """
    del salt
    if x.dim() != 1 or not x.is_contiguous():
        raise ValueError(f"x must be a contiguous vector, got {tuple(x.shape)}")
    if cuts.end > x.numel():
        raise ValueError(f"the segments end at {cuts.end}, but x has {x.numel()} numbers")
    held = _checked(x, memory)
    long, groups = plan(cuts, x.device, tile, samples, short)
    positions = torch.empty(cuts.total, dtype=torch.int64, device=x.device)
    values = torch.empty(cuts.total, dtype=held.dtype, device=x.device)
    for group in groups:
        top_k_short(x.detach(), held, group, positions, values, memory is not None)
    if long is not None:
        _top_k_long(x.detach(), held, long, positions, values, memory is not None, tile, samples)
    return positions, values


def _checked(x, memory):
    if memory is None:
        return x.detach()
    if memory.shape != x.shape or not memory.is_contiguous():
        raise ValueError(f"memory must be contiguous and of shape {tuple(x.shape)}, as the target")
    if memory.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"memory must be float32 or float64, got {memory.dtype}")
    if torch.promote_types(x.dtype, memory.dtype) != memory.dtype:
        raise TypeError(f"a {x.dtype} target does not fit a {memory.dtype} memory; widen the memory")
    return memory.detach()


def top_k_positions(x, k):
    """As ``laconic.kernels.top_k_positions``: (..., d) to int64 (..., k)."""
    d = x.shape[-1]
    flat = x.detach().reshape(-1)
    positions, _ = top_k_segments(flat, None, _rows(flat.numel() // d, d, k))
    return positions.view(*x.shape[:-1], k)


@lru_cache(maxsize=64)
def _rows(rows, d, k):
    return SelectionTable.of(range(0, rows * d, d), [d] * rows, k)


def _top_k_long(x, memory, long, positions, kept, difference, tile, samples):
    device, dtype, bits = x.device, kept.dtype, MAGNITUDE_BITS[kept.dtype]
    stretches, tiles = len(long.table), len(long.tiles)
    source = {"DIFFERENCE": difference, "FIELDS": LONG_FIELDS}
    data = (x, memory, long.table)

    bounds = torch.empty(stretches, dtype=torch.int64, device=device)
    launch(bound, stretches, *data, bounds, warps=8, BITS=bits, SAMPLES=samples, **source)

    cursors = torch.zeros(stretches, dtype=torch.int64, device=device)
    values = torch.empty(long.room, dtype=dtype, device=device)
    places = torch.empty(long.room, dtype=torch.int32, device=device)
    chunks = torch.empty(tiles, 2, dtype=torch.int64, device=device)
    found = (long.tiles, cursors, values)
    launch(collect, tiles, *data, *found, bounds, places, chunks, TILE=tile, **source)

    threshold = torch.zeros(stretches, 2, dtype=torch.int64, device=device)
    bins = torch.zeros(stretches, 1 << _DIGIT, dtype=torch.int32, device=device)
    sizes = {"BINS": 1 << _DIGIT, "TILE": tile, "PIECE": min(tile, _PIECE)}
    for high in range(bits, 0, -_DIGIT):
        low = max(0, high - _DIGIT)
        launch(histogram, tiles, *data, *found, threshold, bins, low, high, **sizes, **source)
        launch(
            narrow, stretches, long.table, threshold, bins, low, int(high == bits),
            BINS=1 << _DIGIT, FIELDS=LONG_FIELDS,
        )  # fmt: skip

    totals = torch.empty(tiles, 2, dtype=torch.int64, device=device)
    chosen = (*found, places, chunks, threshold, totals)
    launch(count, tiles, *data, *chosen, CHUNK=_CHUNK, TILE=tile, **source)
    launch(scan, stretches, long.table, totals, TILE=tile, CHUNK=1024, FIELDS=LONG_FIELDS)
    launch(write, tiles, *data, *chosen, positions, kept, CHUNK=_CHUNK, TILE=tile, **source)
