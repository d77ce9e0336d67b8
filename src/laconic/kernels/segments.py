"""Element-wise addition and copies of the segments of a group, wherever each lies."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.reference.segments import add_segments_reference, copy_segments_reference
from laconic.kernels.tables import Integers, Vectors

_WORTH = 1 << 16
"""Numbers a thread."""
_REALS = (torch.float32, torch.float64)
_COMPILED = ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16))
"""Pairs of unlike dtypes that have a compiled loop."""


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

    def reference() -> None:
        add_segments_reference(out, x, y, numels)

    if out.on_device or (
        y.dtype == out.dtype and (x.dtype == out.dtype or (x.dtype, out.dtype) in _COMPILED)
    ):
        dispatch_elementwise(
            "segments",
            "add",
            reference,
            numels,
            (out, x, y),
            gpu=lambda gpu: gpu.add_segments(out, x, y, numels),
        )
    else:
        reference()


def copy_segments(out: Vectors, x: Vectors, numels: Integers) -> None:
    """``out <- x``, segment by segment, rounded to the nearest (ties to even) where out is narrower.

    Args:
        out: floating point.
        x: floating point.
        numels: (S,) lengths of the segments.
    """

    def reference() -> None:
        copy_segments_reference(out, x, numels)

    if out.on_device or x.dtype == out.dtype or (x.dtype, out.dtype) in _COMPILED:
        dispatch_elementwise(
            "segments", "copy", reference, numels, (out, x), gpu=lambda gpu: gpu.copy_segments(out, x, numels)
        )
    else:
        reference()


def dispatch_elementwise(
    module: str,
    name: str,
    reference: Callable[[], None],
    numels: Integers,
    vectors: Sequence[Vectors],
    *more: npt.NDArray[Any],
    gpu: Callable[[Any], None] | None = None,
) -> None:
    """Run an element-wise loop over segments on shares of all coordinates, one a thread.

    Args:
        module: of the loop, ``laconic.kernels.cpu.<module>``.
        name: the loop; it is given each vector's array and starts, ``more``, the segments' ends, its share.
        reference: what runs where the loop cannot.
        numels: int64 (S,), lengths of the segments.
        vectors: what it reads and writes.
        more: further arguments.
        gpu: is given ``laconic.kernels.gpu`` where the vectors lie on a device.
    """
    ends = np.cumsum(numels)
    size = int(ends[-1]) if ends.size else 0
    threads = max(1, min(get_threads(), size // _WORTH))

    def compiled(cpu: Any) -> None:
        own = [part for vector in vectors for part in (_seen(vector), vector.starts)]

        def share(thread: int) -> None:
            first, last = size * thread // threads, size * (thread + 1) // threads
            getattr(cpu, name)(*own, *more, ends, first, last)

        in_threads(share, threads)

    dispatch(module, compiled, reference, gpu=gpu, tensor=vectors[0].owners[0] if vectors[0].owners else None)


def _seen(vectors: Vectors) -> Any:
    """The array, of float16 as uint16."""
    return vectors.array.view(np.uint16) if vectors.dtype == torch.float16 else vectors.array
