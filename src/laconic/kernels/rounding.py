"""Rounding segments or rows to the nearest of given levels, or at random to one of the two neighbours."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._code_dtypes import code_dtype, empty_codes, views_by_dtype
from laconic.kernels._dispatch import dispatch
from laconic.kernels.levels import Levels, base_below
from laconic.kernels.magnitudes import are_finite, largest_magnitude, largest_magnitudes
from laconic.kernels.philox import Purpose, Stream
from laconic.kernels.reference.magnitudes import all_finite_reference
from laconic.kernels.reference.rounding import round_to_levels_reference, round_to_signs_reference
from laconic.kernels.segmented import Reading, SegmentedInput, dispatch_rows, in_shares, reading_of
from laconic.kernels.tables import PIECE


def round_to_levels(
    x: Tensor,
    levels: Levels,
    draw: Stream | None = None,
    *,
    base: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Codes of the levels that magnitudes are rounded to, with the signs of the numbers.

    With levels a <= x <= b around a magnitude, the code of b is taken where a uniform number, a multiple of
    2^-32, lies below ``fl(fl(x - a) / fl(b - a))``; without ``draw``, where ``fl(b - x) <= fl(x - a)``.

    Args:
        x: (..., d), what is rounded.
        levels: on x's device, in the accumulation dtype.
        draw: where uniform numbers come from; None: to the nearest level, in the middle to the upper.
        base: int64 (..., 1), the level number up to which there is only 0; None: as the levels' window says,
            or with a scale 0.
        scale: (..., 1), positive or 0, what magnitudes are divided by first; then at most 1.

    Returns:
        (..., d) in the narrowest of int8, int16 and int32 that holds the number of levels.

    Example:
        >>> levels = Levels(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        >>> round_to_levels(torch.tensor([0.4, -1.5, 9.0]), levels)
        tensor([ 0, -2,  3], dtype=torch.int8)
    """

    def compiled(cpu: Any) -> Tensor:
        batch = x.shape[:-1]
        sources = None if draw is None else np.array(draw.sources(Purpose.ROUNDING, batch))
        bases = base_below(largest_magnitude(x), levels) if _hangs(levels, base, scale) else base
        bases = None if bases is None else bases.expand(*batch, 1)
        codes, _ = _rounded(cpu, reading_of(x), levels, sources, bases, scale)
        return codes.view(x.shape)

    def reference() -> Tensor:
        origin = None if draw is None else draw.origin(x.device)
        return round_to_levels_reference(x, levels, origin, base, scale)

    return dispatch_rows(
        "rounding",
        x,
        compiled,
        reference,
        lambda gpu: gpu.round_to_levels(x, levels, draw, base=base, scale=scale),
    )


def round_segments(
    inp: SegmentedInput,
    levels: Levels,
    draw: Stream | None = None,
    *,
    base: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, bool]:
    """As :func:`round_to_levels` of every segment, with the draws of ``draw.at(number)``.

    Args:
        inp: the segments.
        levels: on the CPU, in the accumulation dtype.
        draw: the draws of a round and node; None: to the nearest level.
        base: int64 (S,), or None.
        scale: (S,), in the accumulation dtype, or None.

    Returns:
        Codes (K,), and whether all numbers were finite.

    Example:
        >>> from laconic.kernels.tables import SegmentTable
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> levels = Levels(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        >>> round_segments(SegmentedInput.of_kept(torch.tensor([0.4, -1.5, 9.0]), table), levels)
        (tensor([ 0, -2,  3], dtype=torch.int8), True)
    """

    def compiled(cpu: Any) -> tuple[Tensor, bool]:
        sources = None if draw is None else inp.sources(draw, Purpose.ROUNDING)
        bases = base_below(largest_magnitudes(inp), levels) if _hangs(levels, base, scale) else base
        return _rounded(cpu, inp.reading(), levels, sources, bases, scale)

    def reference() -> tuple[Tensor, bool]:
        rows, found = inp.rows(), [torch.empty(0, dtype=code_dtype(levels.top), device=inp.like.device)]
        for i, (x, number) in enumerate(zip(rows, inp.numbers.tolist(), strict=True)):
            own = (None if t is None else t[i : i + 1] for t in (base, scale))
            origin = None if draw is None else draw.at(number).origin()
            found.append(round_to_levels_reference(x, levels, origin, *own))
        return torch.cat(found), all_finite_reference(rows)

    return dispatch("rounding", compiled, reference, tensor=inp.like)


def _hangs(levels: Levels, base: Tensor | None, scale: Tensor | None) -> bool:
    """Whether the base hangs from the largest number, and matters among normal ones."""
    return base is None and scale is None and levels.window is not None and not levels.lazy


def _rounded(
    cpu: Any,
    reading: Reading,
    levels: Levels,
    sources: Any,
    base: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, bool]:
    """Codes of all columns, and whether all were finite; base and scale as many as segments."""
    unknown = -1 if levels.lazy and scale is None else 0
    bases = np.full(reading.segments, unknown) if base is None else base.reshape(-1).numpy()
    divisors = (
        torch.empty(0, dtype=reading.dtype, device="cpu")
        if scale is None
        else torch.where(scale > 0, scale, 1)
    )
    codes = empty_codes((reading.columns,), levels.top)
    out = views_by_dtype(codes.numpy())
    own = (levels.index, levels.window or 0, bases, divisors.reshape(-1).contiguous().numpy())
    draws = np.empty((0, 23), np.uint64) if sources is None else sources

    def work(*share: int) -> int:
        return cast(int, cpu.round_columns(reading, _room(reading), *own, draws, *share, out))

    return codes, are_finite(max(in_shares(reading.bounds, work), default=0), reading.dtype)


def _room(reading: Reading) -> tuple[Any, ...]:
    neighbours = (np.empty(PIECE, reading.memory.dtype) for _ in range(2))
    integers = (np.empty(PIECE, kind) for kind in (np.int32, np.int32, np.uint32))
    return *reading.room(), *reading.room(), *neighbours, *integers


def round_to_signs(x: Tensor) -> Tensor:
    """Codes 1 and -1 of the signs, that of 0 being plus: int8 (..., d).

    Example:
        >>> round_to_signs(torch.tensor([0.0, -3.0]))
        tensor([ 1, -1], dtype=torch.int8)
    """
    return dispatch_rows(
        "signs",
        x,
        lambda cpu: _signs(cpu, reading_of(x)).view(x.shape),
        lambda: round_to_signs_reference(x),
        lambda gpu: gpu.round_to_signs(x),
    )


def sign_segments(inp: SegmentedInput) -> Tensor:
    """As :func:`round_to_signs` of every segment: int8 (K,)."""
    return dispatch(
        "signs",
        lambda cpu: _signs(cpu, inp.reading()),
        lambda: inp.concatenated(round_to_signs_reference, torch.int8),
        gpu=lambda gpu: gpu.sign_segments(inp.x, inp.memory, inp.numels),
        tensor=inp.like,
    )


def _signs(cpu: Any, reading: Reading) -> Tensor:
    codes = empty_codes((reading.columns,), 1)
    out = codes.numpy()
    in_shares(reading.bounds, lambda *share: cpu.signs(reading, *reading.room(), *share, out))
    return codes
