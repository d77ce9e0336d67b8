"""Exact selection of the largest magnitudes."""

from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._choice import compiled_or_plain, on_gpu
from laconic.kernels._cpu.threads import get_threads
from laconic.kernels._cuts import Cuts

_WORTH = 1 << 7
"""Numbers from which on compiled loops are faster."""
_SHORT = 1 << 12
"""Length of rows up to which PyTorch finds the largest one faster."""
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.uint16,
}
"""Which integers stand for numbers in the compiled loops."""
_STILL = {
    torch.float64: (np.empty(0, np.float64),) * 3,
    torch.float32: (np.empty(0, np.float32),) * 3,
}
"""What the loops get where nothing moves."""


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
    if k < d and (gpu := on_gpu(x)) is not None:
        return cast(Tensor, gpu.top_k_positions(x, k))
    # PyTorch finds the largest of each of many short rows faster.
    if (
        k == d
        or (k == 1 and d < _SHORT)
        or x.numel() < _WORTH
        or x.device.type != "cpu"
        or x.dtype not in _BITS
    ):
        return top_k_reference(x, k)
    rows = x.detach().reshape(-1)
    cuts = _cuts_of_rows(rows.numel(), k, d)
    found = compiled_or_plain(
        "selection",
        lambda loops: _compiled(loops, rows, None, cuts, 0)[0],
        lambda: top_k_reference(x, k),
    )
    if found.shape != (*x.shape[:-1], k):
        starts = torch.arange(0, rows.numel(), d).unsqueeze(-1)
        found = (found.view(-1, k) - starts).view(*x.shape[:-1], k)
    return found


@lru_cache(maxsize=64)
def _cuts_of_rows(numel: int, k: int, d: int) -> Cuts:
    return Cuts.of([0], [numel], k, block=d)


def top_k_reference(x: Tensor, k: int) -> Tensor:
    """As :func:`top_k_positions`, in plain PyTorch on any device."""
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


def top_k_segments(x: Tensor, memory: Tensor | None, cuts: Cuts, *, salt: int = 0) -> tuple[Tensor, Tensor]:
    """Top-k of x - memory, or of x, in each segment of a flat vector; neither is changed.

    Magnitudes of ``fl(x - memory)``, x in memory's dtype, are compared as in :func:`top_k_positions`. As
    NaN and infinity stand above all finite numbers, and every segment or block keeps at least one number:
    **the values are all finite exactly where the whole of x - memory is** (within the segments). Where a
    segment holds more NaNs than are kept, which of them are kept may depend on the processor.

    Args:
        x: (D,), contiguous, float32, float64, bfloat16 or float16.
        memory: (D,), contiguous, in x's accumulation dtype: float64 for float64, else float32. Or None.
        cuts: the segments, or the blocks of segments, and how many numbers each keeps.
        salt: where samples are drawn, best another one each round. It changes the speed, never the result.

    Returns:
        int64 positions (cuts.total,), counted from the start of their segment, ascending in each; and the
        numbers there: ``fl(x - memory)`` in memory's dtype, or x's own.

    Raises:
        ValueError: for another dtype, shape or device than said above, or where a segment ends after D.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 3.0, 2.0, 0.5])
        >>> top_k_segments(x, torch.ones(5), Cuts.of([0, 3], [3, 2], [2, 1]))
        (tensor([1, 2, 0]), tensor([-4.,  2.,  1.]))
    """
    _check(x, memory, cuts)
    if cuts.total and (gpu := on_gpu(x)) is not None:
        return cast(tuple[Tensor, Tensor], gpu.top_k_segments(x, memory, cuts, salt=salt))
    if x.device.type != "cpu" or cuts.total == 0:
        return top_k_segments_reference(x, memory, cuts)
    return compiled_or_plain(
        "selection",
        lambda loops: _compiled(loops, x, memory, cuts, salt),
        lambda: top_k_segments_reference(x, memory, cuts),
    )


class Moved(NamedTuple):
    """What :func:`move_top_k_` did to a memory.

    Args:
        positions: int64 (cuts.total,), as :func:`top_k_segments` returns them.
        values: what was kept there, and added or taken away.
        before: what stood there before, so that it can be put back.
    """

    positions: Tensor
    values: Tensor
    before: Tensor


def move_top_k_(memory: Tensor, cuts: Cuts, target: Tensor | None = None, *, salt: int = 0) -> Moved:
    """Select as :func:`top_k_segments`, and move the memory by what is kept, in one reading.

    Towards a target, ``h <- h + C(g - h)``, as EF21 does; or without one towards 0, ``e <- e - C(e)``, as
    EF14 does. A block, or a segment that the cache holds, changes while it is there.

    Args:
        memory: (D,), contiguous, float32 or float64, changed in place.
        cuts: the segments, which must not overlap.
        target: (D,), contiguous, of a dtype whose accumulation dtype is memory's.
        salt: as for :func:`top_k_segments`.

    Raises:
        ValueError: as :func:`top_k_segments`.

    Example:
        >>> h, g, cuts = torch.zeros(4), torch.tensor([1.0, -3.0, 0.5, 2.0]), Cuts.of([0], [4], 2)
        >>> move_top_k_(h, cuts, g).positions
        tensor([1, 3])
        >>> h
        tensor([ 0., -3.,  0.,  2.])
        >>> move_top_k_(h, cuts).before
        tensor([-3.,  2.])
        >>> h
        tensor([0., 0., 0., 0.])
    """
    _check(memory if target is None else target, memory, cuts)

    def plain() -> Moved:
        x, other = (memory, None) if target is None else (target, memory)
        positions, values = top_k_segments(x, other, cuts, salt=salt)
        places = flat_places(positions, cuts)
        numbers = memory.detach()
        before = numbers[places]
        numbers[places] = before - values if target is None else before + values
        return Moved(positions, values, before)

    def compiled(loops: Any) -> Moved:
        before = torch.empty(cuts.total, dtype=memory.dtype)
        x, other = (memory, None) if target is None else (target, memory)
        return Moved(*_compiled(loops, x, other, cuts, salt, (memory, before)), before)

    if memory.device.type != "cpu" or cuts.total == 0:
        return plain()
    return compiled_or_plain("selection", compiled, plain)


def flat_places(positions: Tensor, cuts: Cuts) -> Tensor:
    """Where positions that count from the start of their segment lie in the vector: int64 (cuts.total,)."""
    return positions + torch.from_numpy(cuts.starts.repeat(cuts.kept)).to(positions.device)


def top_k_segments_reference(x: Tensor, memory: Tensor | None, cuts: Cuts) -> tuple[Tensor, Tensor]:
    """As :func:`top_k_segments`, in plain PyTorch on any device."""
    x = x.detach()
    difference = x if memory is None else x.to(memory.dtype) - memory.detach()
    positions, values = [x.new_empty(0, dtype=torch.int64)], [difference[:0]]
    for start, length, block, count, last in zip(
        *(column.tolist() for column in (cuts.starts, cuts.lengths, cuts.blocks, cuts.counts, cuts.lasts)),
        strict=True,
    ):
        for lo in range(0, length, block):
            k = count if lo + block <= length else last
            part = difference[start + lo : start + min(lo + block, length)]
            here = top_k_reference(part, k)
            positions.append(here + lo)
            values.append(part[here])
    return torch.cat(positions), torch.cat(values)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(x: Tensor, memory: Tensor | None, cuts: Cuts) -> None:
    if x.dim() != 1 or x.dtype not in _BITS or not x.is_contiguous():
        raise ValueError(
            f"x must be a contiguous vector of {', '.join(map(str, _BITS))}, got {tuple(x.shape)} {x.dtype}"
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


def _compiled(
    loops: Any,
    x: Tensor,
    memory: Tensor | None,
    cuts: Cuts,
    salt: int,
    moved: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """``moved``: what changes, and room for what stood there; without a memory, the kept is taken away."""
    positions = torch.empty(cuts.total, dtype=torch.int64)
    values = torch.empty(cuts.total, dtype=x.dtype if memory is None else memory.dtype)
    still = _STILL[accumulation_dtype(x.dtype)]
    changes = still if moved is None else tuple(each.detach().numpy() for each in (*moved, values))
    loops.top_k(
        _seen(x),
        None if memory is None else _seen(memory),
        cuts,
        salt,
        get_threads(),
        positions.numpy(),
        _seen(values),
        (*changes, memory is None),
    )
    return positions, values


def _seen(x: Tensor) -> npt.NDArray[np.generic]:
    return x.detach().view(_BITS[x.dtype]).numpy()
