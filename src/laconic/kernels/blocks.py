"""Rounding to equal steps between the smallest and the largest magnitude of each block."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._code_dtypes import CODE_DTYPES, code_dtype, empty_codes, views_by_dtype
from laconic.kernels._dispatch import dispatch
from laconic.kernels.magnitudes import are_finite
from laconic.kernels.reference.blocks import dequantize_blocks_reference, quantize_blocks_reference
from laconic.kernels.reference.magnitudes import all_finite_reference
from laconic.kernels.segmented import (
    Reading,
    SegmentedInput,
    block_bounds,
    dispatch_rows,
    in_shares,
    reading_of,
)
from laconic.kernels.tables import PIECE

_TILE = 4096
"""The longest block that a GPU's program holds at once."""


def quantize_blocks(x: Tensor, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of the nearest of ``low + j span / steps``, j = 0 ... steps, with the signs of x.

    With a = |x|, the code is ``sign (1 + trunc(fl(fl(fl(fl(a - low) / span) steps) + 1/2)))``. The span is
    ``fl(highest - low)``, one step less where ``low + span`` would be infinite.

    Args:
        x: (..., d), finite.
        steps: j's largest value.
        block: numbers a block; the last may hold fewer.

    Returns:
        Codes (..., d), int8 up to 126 steps, else int16 or int32; low and span, (..., ceil(d / block)) in
        the accumulation dtype.

    Example:
        >>> codes, low, span = quantize_blocks(torch.tensor([1.0, -2.1, 3.9, 4.0]), 3, 1024)
        >>> codes, float(low), float(span)
        (tensor([ 1, -2,  4,  4], dtype=torch.int8), 1.0, 3.0)
    """

    def compiled(cpu: Any) -> tuple[Tensor, Tensor, Tensor]:
        codes, low, span, _ = _quantized(cpu, reading_of(x), steps, block)
        return codes.view(x.shape), low.view(*x.shape[:-1], -1), span.view(*x.shape[:-1], -1)

    return dispatch_rows(
        "blocks",
        x,
        compiled,
        lambda: quantize_blocks_reference(x, steps, block),
        (lambda gpu: gpu.quantize_blocks(x, steps, block)) if block <= _TILE else None,
    )


def quantize_block_segments(
    inp: SegmentedInput, steps: int, block: int
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """As :func:`quantize_blocks` of every segment, in which blocks begin anew.

    Args:
        inp: the segments.
        steps: as for :func:`quantize_blocks`.
        block: numbers a block; the last of a segment may hold fewer.

    Returns:
        Codes (K,); low and span (B,), B the number of all blocks; and whether all numbers were finite.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> quantize_block_segments(SegmentedInput.of_kept(torch.tensor([1.0, -3.0, 5.0]), table), 3, 1024)[1]
        tensor([1., 5.])
    """

    def reference() -> tuple[Tensor, Tensor, Tensor, bool]:
        rows, empty = inp.rows(), torch.empty(0, dtype=inp.dtype, device=inp.like.device)
        found = [(empty.to(code_dtype(steps + 1)), empty, empty)]
        found += [quantize_blocks_reference(x, steps, block) for x in rows]
        codes, low, span = (torch.cat(columns) for columns in zip(*found, strict=True))
        return codes, low, span, all_finite_reference(rows)

    return dispatch(
        "blocks", lambda cpu: _quantized(cpu, inp.reading(), steps, block), reference, tensor=inp.like
    )


def _quantized(cpu: Any, reading: Reading, steps: int, block: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    codes = empty_codes((reading.columns,), steps + 1)
    owned = block_bounds(reading.bounds, block)
    low = torch.empty(int(owned[-1]), dtype=reading.dtype, device="cpu")
    span = torch.empty_like(low)
    out = (views_by_dtype(codes.numpy()), low.numpy(), span.numpy())

    def work(*share: int) -> int:
        room = (*reading.room(), np.empty(PIECE, np.int32))
        return cast(int, cpu.quantize(reading, room, steps, block, owned, *share, *out))

    most = max(in_shares(reading.bounds, work, block), default=0)
    return codes, low, span, are_finite(most, reading.dtype)


def dequantize_blocks(codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int) -> Tensor:
    """``sign(code) fl(low + fl(levels[|code|] span))``, with the span and low of each number's block.

    Args:
        codes: of a signed integer dtype, (..., k).
        levels: by |code|, in span's dtype.
        span: (..., ceil(k / block)).
        low: as span.
        block: numbers a block.

    Returns:
        (..., k) in span's dtype.
    """
    fits = codes.device.type == "cpu" and span.dtype == torch.float32 and codes.dtype in CODE_DTYPES
    return dispatch(
        "blocks",
        (lambda cpu: _dequantize_rows(cpu, codes, levels, span, low, block)) if fits else None,
        lambda: dequantize_blocks_reference(codes, levels, span, low, block),
        gpu=lambda gpu: gpu.dequantize_blocks(codes, levels, span, low, block),
        tensor=codes,
    )


def _dequantize_rows(
    cpu: Any, codes: Tensor, levels: Tensor, span: Tensor, low: Tensor, block: int
) -> Tensor:
    numbers = torch.from_numpy(np.empty(codes.shape, np.float32))
    rows = (t.detach().reshape(-1, t.shape[-1]).contiguous().numpy() for t in (span, low))
    cpu.dequantize(
        codes.detach().reshape(-1, codes.shape[-1]).contiguous().numpy(),
        levels.numpy(),
        *rows,
        block,
        numbers.view(-1, codes.shape[-1]).numpy(),
    )
    return numbers
