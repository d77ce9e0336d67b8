"""Addition of kept numbers to a vector, nodes in ascending order.

No sum depends on the order of programs. There is one launch a node, and launches on a stream follow each
other; within a node the positions are distinct, so no two programs touch one number.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

import triton
import triton.language as tl

from laconic.kernels.gpu._launch import launch
from laconic.kernels.gpu._numbers import widened

_TILE = 1024


def scatter_add_(out, positions, values):
    """As ``laconic.kernels.scatter_add_``.

    Args:
        out: (..., d), float32 or float64, rows contiguous.
        positions: int64 (..., n, k) in [0, d), distinct along the last dimension, in any order.
        values: (..., n, k), of out's dtype or narrower.

    Raises:
        ValueError: where out's rows do not lie one after another.
    """
    rows = _rows(out)
    nodes, k = positions.shape[-2:]
    places, numbers = (t.reshape(-1, nodes, k).contiguous() for t in (positions, values))
    tiles = triton.cdiv(k, _TILE)
    for node in range(nodes):
        launch(
            _add, len(rows) * tiles, rows, places, numbers, rows.stride(0), node, nodes, k, tiles, TILE=_TILE
        )


def _rows(out):
    if out.dim() == 1:
        out = out.unsqueeze(0)
    if out.stride(-1) != 1 and out.shape[-1] > 1:
        raise ValueError("out's rows must be contiguous")
    return out.detach().view(-1, out.shape[-1])


@triton.jit(do_not_specialize=["node", "nodes", "tiles"])
def _add(out, positions, values, stride, node, nodes, k, tiles, TILE: tl.constexpr):
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
    tl.store(target, held + number, mask=mask)
