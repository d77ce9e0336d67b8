"""Rounding segments or rows to the nearest of given levels, or at random to one of the two neighbours."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels._narrow import by_width, code_dtype, code_room
from laconic.kernels.levels import Levels, base_below, bracket
from laconic.kernels.magnitudes import are_finite, largest_magnitude, largest_magnitudes
from laconic.kernels.philox import Purpose, Stream
from laconic.kernels.segmented import Reading, SegmentedInput, in_shares, reading_of
from laconic.kernels.steps import Step, dispatch_step


def round_plainly(x: Tensor, levels: Levels, draw: Stream | None, base: Tensor | None) -> Tensor:
    """The definition of :func:`round_to_levels` for magnitudes x: int64 (..., d), no signs yet."""
    below, above = bracket(x, levels, base)
    low, high = levels.table[below], levels.table[above]
    if draw is None:
        return torch.where(high - x <= x - low, above, below)
    gap = high - low
    share = torch.where(gap > 0, (x - low) / torch.where(gap > 0, gap, 1), 0)
    uniform = draw.uniform(x.shape[-1], Purpose.ROUNDING, x.device)
    return torch.where(uniform < share.to(torch.float64), above, below)


def round_to_levels(
    step: Step,
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
        step: what is rounded.
        levels: on the step's device, in its dtype.
        draw: where uniform numbers come from; None: to the nearest level, in the middle to the upper.
        base: int64 (..., 1), the level number up to which there is only 0; None: as the levels' window says,
            or with a scale 0.
        scale: (..., 1), positive or 0, what magnitudes are divided by first; then at most 1.

    Returns:
        (..., d) in the narrowest of int8, int16 and int32 that holds the number of levels.

    Example:
        >>> levels = Levels(torch.tensor([0.0, 1.0, 2.0, 4.0]))
        >>> round_to_levels(Step(torch.tensor([0.4, -1.5, 9.0])), levels)
        tensor([ 0, -2,  3], dtype=torch.int8)
    """

    def compiled(loops: Any) -> Tensor:
        sources = None if draw is None else np.array(draw.sources(Purpose.ROUNDING, step.batch))
        bases = base_below(largest_magnitude(step), levels) if _hangs(levels, base, scale) else base
        bases = None if bases is None else bases.expand(*step.batch, 1)
        codes, _ = _rounded(loops, reading_of(step), levels, sources, bases, scale)
        return codes.view(step.x.shape)

    def plain() -> Tensor:
        return _round_plainly(step, levels, draw, base, scale)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.round_to_levels(step, levels, draw, base=base, scale=scale))

    return dispatch_step("rounding", step, compiled, plain, on_device)


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

    def compiled(loops: Any) -> tuple[Tensor, bool]:
        sources = None if draw is None else inp.sources(draw, Purpose.ROUNDING)
        bases = base_below(largest_magnitudes(inp), levels) if _hangs(levels, base, scale) else base
        return _rounded(loops, inp.reading(), levels, sources, bases, scale)

    def plain() -> tuple[Tensor, bool]:
        found, finite = [torch.empty(0, dtype=code_dtype(levels.top))], True
        for i, (step, number) in enumerate(zip(inp.steps(), inp.numbers.tolist(), strict=True)):
            own = (None if t is None else t[i : i + 1] for t in (base, scale))
            found.append(_round_plainly(step, levels, None if draw is None else draw.at(number), *own))
            finite = finite and bool(step.numbers().isfinite().all())
        return torch.cat(found), finite

    return dispatch("rounding", compiled, plain)


def _round_plainly(
    step: Step, levels: Levels, draw: Stream | None, base: Tensor | None, scale: Tensor | None
) -> Tensor:
    x = step.numbers()
    magnitudes = x.abs()
    if scale is not None:
        # A zero vector has no direction; its codes are 0 whatever it is divided by.
        magnitudes = (magnitudes / torch.where(scale > 0, scale, 1)).clamp(max=1)
    elif base is None:
        base = base_below(magnitudes.amax(dim=-1, keepdim=True), levels)
    level = round_plainly(magnitudes, levels, draw, base)
    return torch.where(x < 0, -level, level).to(code_dtype(levels.top))


def _hangs(levels: Levels, base: Tensor | None, scale: Tensor | None) -> bool:
    """Whether the base hangs from the largest number, and matters among normal ones."""
    return base is None and scale is None and levels.window is not None and not levels.lazy


def _rounded(
    loops: Any,
    reading: Reading,
    levels: Levels,
    sources: Any,
    base: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, bool]:
    """Codes of all columns, and whether all were finite; base and scale as many as segments."""
    unknown = -1 if levels.lazy and scale is None else 0
    bases = np.full(reading.segments, unknown) if base is None else base.reshape(-1).numpy()
    divisors = torch.empty(0, dtype=reading.dtype) if scale is None else torch.where(scale > 0, scale, 1)
    codes = code_room((reading.columns,), levels.top)
    out = by_width(codes.numpy())
    own = (levels.index, levels.window or 0, bases, divisors.reshape(-1).contiguous().numpy())
    draws = np.empty((0, 23), np.uint64) if sources is None else sources

    def work(*share: int) -> int:
        return cast(int, loops.round_columns(reading, *own, draws, *share, out))

    return codes, are_finite(max(in_shares(reading.bounds, work), default=0), reading.dtype)


def round_to_signs(step: Step) -> Tensor:
    """Codes 1 and -1 of the signs, that of 0 being plus: int8 (..., d).

    Example:
        >>> round_to_signs(Step(torch.tensor([0.0, -3.0])))
        tensor([ 1, -1], dtype=torch.int8)
    """

    def compiled(loops: Any) -> Tensor:
        return _signs(loops, reading_of(step)).view(step.x.shape)

    def plain() -> Tensor:
        return _signs_plainly(step)

    def on_device(gpu: Any) -> Tensor:
        return cast(Tensor, gpu.round_to_signs(step))

    return dispatch_step("signs", step, compiled, plain, on_device)


def sign_segments(inp: SegmentedInput) -> Tensor:
    """As :func:`round_to_signs` of every segment: int8 (K,)."""

    def plain() -> Tensor:
        return torch.cat([torch.empty(0, dtype=torch.int8), *map(_signs_plainly, inp.steps())])

    return dispatch("signs", lambda loops: _signs(loops, inp.reading()), plain)


def _signs_plainly(step: Step) -> Tensor:
    return torch.where(step.numbers() < 0, -1, 1).to(code_dtype(1))


def _signs(loops: Any, reading: Reading) -> Tensor:
    codes = code_room((reading.columns,), 1)
    out = codes.numpy()
    in_shares(reading.bounds, lambda *share: loops.signs(reading, *share, out))
    return codes
