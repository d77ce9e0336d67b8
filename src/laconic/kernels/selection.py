"""Exact selection of the largest magnitudes (Top-k) in segments, and the memory's update by what is kept."""

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.cpu.threads import get_threads
from laconic.kernels.reference.selection import (
    select_segments_reference,
    top_k_positions_reference,
    top_k_segments_reference,
)
from laconic.kernels.tables import Computed, Integers, Vectors, accumulation_dtype, bounds_of
from laconic.kernels.updates import AdamWUpdate

_WORTH = 1 << 7
"""Numbers from which on compiled loops are faster."""
_SHORT = 1 << 12
"""Length of rows up to which PyTorch finds the largest one faster."""
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Move = Literal["none", "track", "sum", "drain"]


def top_k_positions(x: Tensor, k: int) -> Tensor:
    """Positions of the k numbers of largest magnitude in each row; ties go to the lowest position.

    Magnitudes are compared as bit patterns with the sign cleared, so 0 and -0 are equal and NaN
    stands above infinity.

    Args:
        x: (..., d), floating point.
        k: in [1, d].

    Returns:
        int64 (..., k), ascending along the last dimension.

    Example:
        >>> top_k_positions(torch.tensor([1.0, -3.0, 3.0, 2.0, -3.0]), 2)
        tensor([1, 2])
    """
    d = x.shape[-1]
    # PyTorch finds the largest of each of many short rows faster.
    short = k == d or (k == 1 and d < _SHORT) or x.numel() < _WORTH

    def compiled(cpu: Any) -> Tensor:
        rows = x.detach().reshape(-1)
        cuts = _table_of_rows(rows.numel(), k, d)
        found = _compiled(cpu, _flat(rows, cuts), None, None, cuts, 0, "none").positions
        if x.dim() == 1:
            return found
        starts = torch.arange(0, rows.numel(), d, device="cpu").unsqueeze(-1)
        return (found.view(-1, k) - starts).view(*x.shape[:-1], k)

    return dispatch(
        "selection",
        None if short or x.device.type != "cpu" or x.dtype not in _DTYPES else compiled,
        lambda: top_k_positions_reference(x, k),
        gpu=(lambda gpu: gpu.top_k_positions(x, k)) if k < d else None,
        tensor=x,
    )


@lru_cache(maxsize=64)
def _table_of_rows(numel: int, k: int, d: int) -> SelectionTable:
    return SelectionTable.of([0], [numel], k, block=d)


class Selected(NamedTuple):
    """The largest magnitudes of each segment.

    Args:
        positions: int64 (cuts.total,), counted from the start of their segment, ascending in each.
        values: (cuts.total,), the numbers there, in the accumulation dtype; in x's own where x alone is read.
        before: (cuts.total,), what stood in the vectors that were moved before the kept was added or taken
            away, so that it can be put back; None where nothing was moved.
    """

    positions: Tensor
    values: Tensor
    before: Tensor | None


def select_segments(
    x: Vectors | Computed | None,
    memory: Vectors | None,
    cuts: SelectionTable,
    *,
    salt: int = 0,
    move: Move = "none",
    out: Vectors | None = None,
) -> Selected:
    """Top-k of each segment, wherever its numbers lie, and the memory's update, in one reading.

    ============  =================  ==========================  ======================================
    move          operands           selected among              changed
    ============  =================  ==========================  ======================================
    ``"none"``    x                  x                           nothing
    ``"none"``    x, memory          fl(x - memory)              nothing
    ``"track"``   x, memory          fl(x - memory)              memory <- fl(memory + kept)
    ``"sum"``     x, memory, out     s = fl(memory + x)          out <- s
    ``"drain"``   memory             memory                      memory <- fl(memory - kept)
    ``"drain"``   x, memory, out     s = fl(memory + x)          out <- s, then out <- fl(out - kept)
    ============  =================  ==========================  ======================================

    Magnitudes are compared as in :func:`top_k_positions`. As NaN and infinity stand above all finite numbers,
    and every segment or block keeps at least one number: **the values are all finite exactly where everything
    that was selected among is** (within the segments). Where a segment holds more NaNs than are kept, which
    of them are kept may depend on the processor.

    Args:
        x: float32, float64, bfloat16; or float16 where it is the only operand. Or, with memory and out, an
            optimiser's update, which is computed in the same reading.
        memory: in the accumulation dtype: float64 for float64, else float32.
        cuts: how long the segments are, in which blocks they are cut, and how many numbers each keeps. Where
            they lie is said by the starts of the vectors; ``cuts.starts`` is not used.
        salt: where samples are drawn, best another one each round. It changes the speed, never the result.
        move: what happens to the memory.
        out: in memory's dtype; must not overlap the memory, nor its segments one another.

    Raises:
        ValueError: for other operands or dtypes than said above, vectors of another number of segments, or a
            segment outside its vector.

    Example:
        >>> g, h = [torch.tensor([1.0, -3.0, 3.0])], [torch.ones(3)]
        >>> cuts = SelectionTable.of([0], [3], 1)
        >>> select_segments(Vectors.of(g), Vectors.of(h), cuts, move="track")
        Selected(positions=tensor([1]), values=tensor([-4.]), before=tensor([1.]))
        >>> h
        [tensor([ 1., -3.,  1.])]
    """
    update = None
    if isinstance(x, AdamWUpdate):
        _check_operands(x.moment, x.after, out, cuts, move)
        update, x = x, x.gradient
    elif x is not None and not isinstance(x, Vectors):
        x = _written(x)
    _check_operands(x, memory, out, cuts, move)
    if cuts.total == 0:
        dtype = (x if memory is None else memory).dtype  # type: ignore[union-attr]
        empty = torch.empty(0, dtype=dtype, device="cpu")
        before = empty.clone() if _MOVES[move] else None
        return Selected(torch.empty(0, dtype=torch.int64, device="cpu"), empty, before)

    def reference() -> Selected:
        numbers = x if update is None else _written(update)
        return Selected(*select_segments_reference(numbers, memory, cuts, move, out))

    found = dispatch(
        "selection",
        lambda cpu: _compiled(cpu, _located(x), _located(memory), _located(out), cuts, salt, move, update),
        reference,
    )
    if update is not None:
        update.note()
    return found


def _written(computed: Computed) -> Vectors:
    bounds = bounds_of(computed.numels)
    numbers = Vectors.flat(torch.empty(int(bounds[-1]), dtype=computed.dtype, device="cpu"), bounds[:-1])
    computed.write(numbers)
    return numbers


def top_k_segments(
    x: Tensor, memory: Tensor | None, cuts: SelectionTable, *, salt: int = 0
) -> tuple[Tensor, Tensor]:
    """Top-k of x - memory, or of x, in each segment of a flat vector; neither is changed.

    As :func:`select_segments`, of vectors on any device, whose segments begin at ``cuts.starts``.

    Args:
        x: (D,), contiguous, float32, float64, bfloat16 or float16.
        memory: (D,), contiguous, in x's accumulation dtype: float64 for float64, else float32. Or None.
        cuts: the segments, or the blocks of segments, and how many numbers each keeps.
        salt: as for :func:`select_segments`.

    Returns:
        int64 positions (cuts.total,), counted from the start of their segment, ascending in each; and the
        numbers there: ``fl(x - memory)`` in memory's dtype, or x's own.

    Raises:
        ValueError: for another dtype, shape or device than said above, or where a segment ends after D.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 3.0, 2.0, 0.5])
        >>> top_k_segments(x, torch.ones(5), SelectionTable.of([0, 3], [3, 2], [2, 1]))
        (tensor([1, 2, 0]), tensor([-4.,  2.,  1.]))
    """
    _check(x, memory, cuts)
    if x.device.type != "cpu" or cuts.total == 0:
        return dispatch(
            "selection",
            None,
            lambda: top_k_segments_reference(x, memory, cuts),
            gpu=(lambda gpu: gpu.top_k_segments(x, memory, cuts, salt=salt)) if cuts.total else None,
            tensor=x,
        )
    target = x.float() if memory is not None and x.dtype == torch.float16 else x
    held = None if memory is None else Vectors.flat(memory, cuts.starts)
    positions, values, _ = select_segments(Vectors.flat(target, cuts.starts), held, cuts, salt=salt)
    return positions, values


def _check(x: Tensor, memory: Tensor | None, cuts: SelectionTable) -> None:
    if x.dim() != 1 or x.dtype not in _DTYPES or not x.is_contiguous():
        raise ValueError(
            f"x must be a contiguous vector of {', '.join(map(str, _DTYPES))}, got {tuple(x.shape)} {x.dtype}"
        )
    if memory is not None and (
        memory.shape != x.shape
        or memory.dtype != accumulation_dtype(x.dtype)
        or memory.device != x.device
        or not memory.is_contiguous()
    ):
        raise ValueError(
            f"the memory must be a contiguous vector of {x.numel()} {accumulation_dtype(x.dtype)} numbers on "
            f"{x.device}, got {tuple(memory.shape)} {memory.dtype} on {memory.device}"
        )
    if cuts.end > x.numel():
        raise ValueError(f"the segments end at {cuts.end}, but x has {x.numel()} numbers")


_OPERANDS = {
    "none": ((True, False, False), (True, True, False)),
    "track": ((True, True, False),),
    "sum": ((True, True, True),),
    "drain": ((False, True, False), (True, True, True)),
}
"""Operands (x, memory, out) that each kind of memory update accepts, as present or not."""


def _check_operands(
    x: Vectors | None, memory: Vectors | None, out: Vectors | None, cuts: SelectionTable, move: str
) -> None:
    given = tuple(each is not None for each in (x, memory, out))
    if given not in _OPERANDS.get(move, ()):
        names = ", ".join(name for name, one in zip(("x", "memory", "out"), given, strict=True) if one)
        raise ValueError(
            f"move={move!r} does not take {names or 'nothing'}; see the table of operands in select_segments"
        )
    wide = accumulation_dtype((memory if x is None else x).dtype)  # type: ignore[union-attr]
    narrow = _DTYPES if memory is None else _DTYPES[:3]
    for name, vectors, dtypes in (("x", x, narrow), ("memory", memory, (wide,)), ("out", out, (wide,))):
        if vectors is None:
            continue
        if vectors.dtype not in dtypes:
            raise ValueError(f"{name} must be {' or '.join(map(str, dtypes))}, got {vectors.dtype}")
        if vectors.starts.shape != cuts.lengths.shape:
            raise ValueError(
                f"{name} has {vectors.starts.size} segments, but the selection table has {cuts.lengths.size}"
            )
        ends = vectors.starts + cuts.lengths
        if ends.size and (vectors.starts.min() < 0 or ends.max() > vectors.array.size):
            raise ValueError(
                f"segments of {name} lie in [{vectors.starts.min()}, {ends.max()}), "
                f"outside [0, {vectors.array.size})"
            )
    if out is not None and memory is not None and out.array is memory.array:
        raise ValueError("out must be another vector than the memory, which stays as it is")


class _Located(NamedTuple):
    """Addresses of the segments' first numbers, int64 (S,); their dtype; and what keeps them alive."""

    addresses: Integers
    dtype: torch.dtype
    owner: object


def _located(vectors: Vectors | None) -> _Located | None:
    if vectors is None:
        return None
    return _Located(_addresses(vectors), vectors.dtype, vectors)


def _addresses(vectors: Vectors) -> Integers:
    address: int = vectors.array.__array_interface__["data"][0]
    found: Integers = address + vectors.starts * vectors.array.itemsize
    return found


def _flat(vector: Tensor, cuts: SelectionTable) -> _Located:
    return _Located(vector.data_ptr() + cuts.starts * vector.itemsize, vector.dtype, vector)


_X, _DIFFERENCE, _SUM, _NARROW, _ADAMW = 0, 1, 2, 3, 6  # as cpu.topk_tiles has them
_MOVES = {"none": 0, "track": 1, "sum": 0, "drain": -1}
_NOTHING = {
    dtype: torch.empty(0, dtype=dtype, device="cpu").numpy() for dtype in (torch.float32, torch.float64)
}


def _compiled(
    cpu: Any,
    x: _Located | None,
    memory: _Located | None,
    out: _Located | None,
    cuts: SelectionTable,
    salt: int,
    move: Move,
    update: AdamWUpdate | None = None,
) -> Selected:
    main = x or memory
    assert main is not None
    what = _X if x is None or memory is None else _DIFFERENCE if out is None else _SUM
    own, rows = (main.addresses, main.addresses, main.addresses), None
    if update is not None:
        what, rows = _ADAMW, update.rows
        steps = rows.ctypes.data + np.arange(len(rows)) * rows.strides[0]
        own = _addresses(update.moment), _addresses(update.after), steps
    narrow = main.dtype.itemsize == 2
    wide = accumulation_dtype(main.dtype)
    positions = torch.empty(cuts.total, dtype=torch.int64, device="cpu")
    values = torch.empty(cuts.total, dtype=wide, device="cpu")
    before = torch.empty(cuts.total, dtype=wide, device="cpu") if _MOVES[move] else None
    cpu.select(
        # Addresses of what is not there are not used.
        (what + _NARROW * narrow, main.addresses, (memory or main).addresses, (out or main).addresses, *own),
        cuts,
        salt,
        get_threads(),
        positions.numpy(),
        values.numpy(),
        _NOTHING[wide] if before is None else before.numpy(),
        _MOVES[move],
    )
    if narrow and memory is None:
        values = (values.view(torch.int32) >> 16).to(torch.int16).view(main.dtype)
    return Selected(positions, values, before)
