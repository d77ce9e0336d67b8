"""Element-wise operations on the segments of a group, wherever each lies: addition and copies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.tables import Integers, Vectors

_WORTH = 1 << 16
"""Numbers a thread."""
_REALS = (torch.float32, torch.float64)
_COMPILED = ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16))
"""Unlike dtypes that are worth a loop of their own."""


def segment_of(vectors: Vectors, s: int, numel: int) -> Tensor:
    """Segment s as a tensor that shares its memory."""
    start = int(vectors.starts[s])
    own = torch.from_numpy(vectors.array[start : start + numel])
    return own.view(vectors.dtype) if own.dtype != vectors.dtype else own


def add_segments(out: Vectors, x: Vectors, y: Vectors, numels: Integers) -> None:
    """``out <- fl(x + y)``, segment by segment.

    Args:
        out: float32 or float64; may be x or y.
        x: in out's dtype; or float32, bfloat16 or float16, which are widened exactly.
        y: as x.
        numels: (S,) lengths of the segments.

    Example:
        >>> out, one = torch.zeros(3), torch.ones(3)
        >>> starts, numels = np.array([0, 2]), np.array([2, 1])
        >>> flat = Vectors.flat(one, starts)
        >>> add_segments(Vectors.flat(out, starts), flat, flat, numels)
        >>> out
        tensor([2., 2., 2.])
    """
    if out.dtype not in _REALS or any(torch.promote_types(v.dtype, out.dtype) != out.dtype for v in (x, y)):
        raise ValueError(f"{out.dtype} cannot hold the sums of {x.dtype} and {y.dtype} numbers")

    def plainly() -> None:
        for s, numel in enumerate(numels.tolist()):
            first, second = (segment_of(part, s, numel).to(out.dtype) for part in (x, y))
            torch.add(first, second, out=segment_of(out, s, numel))

    if y.dtype == out.dtype and (x.dtype == out.dtype or (x.dtype, out.dtype) in _COMPILED):
        _split("add", plainly, numels, out, x, y)
    else:
        plainly()


def copy_segments(out: Vectors, x: Vectors, numels: Integers) -> None:
    """``out <- x``, segment by segment, rounded to the nearest (ties to even) where out is narrower.

    Args:
        out: floating point.
        x: floating point.
        numels: (S,) lengths of the segments.
    """

    def plainly() -> None:
        for s, numel in enumerate(numels.tolist()):
            segment_of(out, s, numel).copy_(segment_of(x, s, numel))

    if x.dtype == out.dtype or (x.dtype, out.dtype) in _COMPILED:
        _split("copy", plainly, numels, out, x)
    else:
        plainly()


def _split(name: str, plainly: Callable[[], None], numels: Integers, *vectors: Vectors) -> None:
    ends = np.cumsum(numels)
    size = int(ends[-1]) if ends.size else 0
    threads = max(1, min(get_threads(), size // _WORTH))

    def compiled(loops: Any) -> None:
        own = [part for vector in vectors for part in (_seen(vector), vector.starts)]

        def share(thread: int) -> None:
            first, last = size * thread // threads, size * (thread + 1) // threads
            getattr(loops, name)(*own, ends, first, last)

        in_threads(share, threads)

    dispatch("segments", compiled, plainly)


def _seen(vectors: Vectors) -> Any:
    """The array, of float16 as uint16."""
    return vectors.array.view(np.uint16) if vectors.dtype == torch.float16 else vectors.array
