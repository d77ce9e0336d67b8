"""Random positions in all segments of a group: Rand-k's permutations, and independent choices."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.philox import Stream
from laconic.kernels.reference.draws import (
    chosen_segments_reference,
    gather_segments_reference,
    permuted_segments_reference,
)
from laconic.kernels.segmented import SegmentedInput
from laconic.kernels.tables import Integers, SegmentTable


def permuted_segments(draw: Stream, table: SegmentTable, device: torch.device | str = "cpu") -> Tensor:
    """The first ``kept`` images of each segment's keyed permutation, ascending.

    Args:
        draw: the draws of this seed, round and node; its segment does not matter.
        table: lengths, counts and numbers of the segments.
        device: of the result.

    Returns:
        int64 (..., K), counted from the start of each segment; leading dimensions are those of seed and node.

    Example:
        >>> table = SegmentTable((0, 9), (9, 4), (2, 1), (0, 5))
        >>> draw = Stream(seed=7, round=3)
        >>> torch.equal(permuted_segments(draw, table)[:2], draw.at(0).permuted(9, 2).sort().values)
        True
    """

    def compiled(loops: Any) -> Tensor:
        places, batch = _places(draw)
        found = np.empty((len(places), table.columns), np.int64)
        most = math.isqrt(max(table.numels, default=1)) + 1  # rows of the largest rectangle
        sources, drawn = np.empty((loops.STEPS, 23), np.uint64), np.empty(4 * most, np.uint32)
        room = (sources, np.empty((loops.STEPS, most), np.int64), drawn)
        for place, row in zip(places, found, strict=True):
            loops.permuted(place, table.number_array, table.numel_array, table.bounds, *room, row)
        # Sorted all at once, and still by segment.
        starts = np.repeat(np.cumsum(table.numel_array) - table.numel_array, table.kept_array)
        found += starts
        found.sort(axis=-1)
        found -= starts
        return torch.from_numpy(found).reshape(*batch, table.columns)

    return dispatch(
        "draws",
        compiled if torch.device(device).type == "cpu" else None,
        lambda: permuted_segments_reference(draw.origin(device), table),
    )


def chosen_segments(
    draw: Stream, p: float | tuple[float, ...], table: SegmentTable, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The coordinates of each segment whose own uniform number lies below their probability.

    Args:
        draw: as for :func:`permuted_segments`.
        p: one probability, or one for each coordinate of a segment.
        table: lengths and numbers of the segments.
        device: of the results.

    Returns:
        int64 positions (..., D), D the numbers of all segments: ascending in each segment, counted from its
        start, and then its length in the places that are not used; int64 counts (..., S).

    Example:
        >>> table = SegmentTable((0, 2), (2, 3), (2, 3), (0, 1))
        >>> chosen_segments(Stream(seed=1), 1.0, table)
        (tensor([0, 1, 0, 1, 2]), tensor([2, 3]))
    """

    def compiled(loops: Any) -> tuple[Tensor, Tensor]:
        places, batch = _places(draw)
        numels, probabilities = table.numel_array, np.atleast_1d(np.array(p, np.float64))
        positions = np.empty((len(places), int(numels.sum())), np.int64)
        counts = np.empty((len(places), len(numels)), np.int64)
        room = (np.empty(23, np.uint64), np.empty(loops.PIECE, np.uint32))
        for row, place in enumerate(places):
            own = positions[row], counts[row]
            loops.chosen(place, table.number_array, numels, probabilities, *room, *own)
        return (
            torch.from_numpy(positions).reshape(*batch, -1),
            torch.from_numpy(counts).reshape(*batch, -1),
        )

    return dispatch(
        "draws",
        compiled if torch.device(device).type == "cpu" else None,
        lambda: chosen_segments_reference(draw.origin(device), p, table),
    )


def gather_segments(inp: SegmentedInput, positions: Tensor, bounds: Integers) -> Tensor:
    """The numbers of each segment at some positions, 0 where a position is not in it.

    Args:
        inp: the segments, x or ``x - memory``.
        positions: int64 (K,), counted from the start of each segment.
        bounds: int64 (S + 1,), segment s owns the positions from ``bounds[s]`` to ``bounds[s + 1]``.

    Returns:
        (K,) in the accumulation dtype, or in x's own where there is no memory.

    Example:
        >>> from laconic.kernels.tables import Vectors
        >>> table = SegmentTable((0, 2), (2, 3), (2, 1), (0, 1))
        >>> inp = SegmentedInput.of(Vectors.flat(torch.arange(5.0), table.start_array), table)
        >>> gather_segments(inp, torch.tensor([1, 2, 0]), table.bounds)
        tensor([1., 0., 2.])
    """

    def compiled(loops: Any) -> Tensor:
        found = torch.empty(len(positions), dtype=inp.dtype, device="cpu")
        numbers = found.numpy()
        reading = inp.reading()
        loops.gather(reading, bounds, positions.numpy(), numbers, numbers.view(reading.mask.dtype))
        return found.to(inp.x.dtype) if inp.memory is None else found

    def reference() -> Tensor:
        found = gather_segments_reference(inp.rows(), positions, bounds)
        return found.to(inp.x.dtype) if inp.memory is None else found

    return dispatch("draws", compiled, reference)


def _places(draw: Stream) -> tuple[npt.NDArray[np.uint64], torch.Size]:
    """Seed, round, node and a segment of each row of draws: uint64 (rows, 4); and the leading dimensions."""
    origin = draw.origin()
    return origin.reshape(-1, 4).contiguous().numpy().view(np.uint64), origin.shape[:-1]
