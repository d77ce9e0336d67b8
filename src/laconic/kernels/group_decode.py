"""Decoding of a group's columns: the numbers that values or codes stand for."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._addresses import as_array, factor_array, stretches_of
from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.received import Factors
from laconic.kernels.reference.group_decode import decode_reference
from laconic.kernels.tables import SegmentTable

_WORTH = 1 << 16
"""Codes a thread."""
_CODES = (torch.int8, torch.int16, torch.int32)


def decode(
    values: Tensor,
    table: SegmentTable,
    levels: Tensor | None,
    scale: Tensor | None,
    low: Tensor | None,
    block: int | None,
    factors: Factors | None,
    dtype: torch.dtype,
) -> Tensor:
    """The numbers of all columns: (..., K); ``values`` itself where nothing is to be done.

    With levels, ``fl(level scale)``, or ``sign(code) fl(low + fl(|level| scale))`` where there are lowest
    magnitudes; either, or the number itself, times the factor of its segment.

    Args:
        values: (..., K) numbers; or codes, int8, int16 or int32.
        table: of the group.
        levels: in ``dtype`` (2 L + 1,), of the codes -L, ..., L; None where values are numbers.
        scale: in ``dtype`` (..., S), or one for each block; None: 1.
        low: as scale; None: nothing is added.
        block: columns of a segment that share a scale; None: all.
        factors: (S,); None: 1. They are rounded to ``dtype``.
        dtype: float32 or float64.

    Raises:
        IndexError: for a code without a level.

    Example:
        >>> codes, scale = torch.tensor([1, -1, 1, 0], dtype=torch.int8), torch.tensor([3.0, 5.0])
        >>> table = SegmentTable((0, 2), (2, 2), (2, 2), (0, 1))
        >>> decode(codes, table, torch.tensor([-1.0, 0.0, 1.0]), scale, None, None, None, torch.float32)
        tensor([ 3., -3.,  5.,  0.])
    """

    def reference() -> Tensor:
        return decode_reference(values, table, levels, scale, low, block, factors, dtype)

    if levels is None or values.device.type != "cpu" or values.dim() != 1 or values.dtype not in _CODES:
        return reference()

    def compiled(cpu: Any) -> Tensor:
        codes, group = values.detach().contiguous().numpy(), stretches_of(table, block)
        given = [as_array(tensor, dtype) for tensor in (levels, scale, low)]
        own = (codes, *given, factor_array(factors, table, dtype), group)
        numbers = torch.empty(values.shape, dtype=dtype, device="cpu")
        threads = max(1, min(get_threads(), codes.size // _WORTH))
        fits = [False] * threads

        def share(thread: int) -> None:
            first, last = codes.size * thread // threads, codes.size * (thread + 1) // threads
            room = np.empty_like(given[0])
            fits[thread] = cpu.decode(*own, room, first, last, numbers.numpy())

        in_threads(share, threads)
        if not all(fits):
            raise IndexError("a code has no level")
        return numbers

    return dispatch("decoding", compiled, reference)
