"""Rounding rows to the nearest of given levels, or at random to one of the two neighbours."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._choice import compiled_or_plain, on_gpu
from laconic.kernels._cpu.threads import in_threads
from laconic.kernels._narrow import by_width, code_dtype, code_room
from laconic.kernels.philox import Purpose, Stream
from laconic.kernels.steps import Row, Step, cuts

_BUCKETS = 1 << 16


class Index(NamedTuple):
    """What finds a number's level at once, for compiled loops.

    ``bits`` are the levels 1, 2, ... as integers, and ``middles`` half of each, at least 1. Where the levels
    are successive powers of two, a normal number with exponent field e lies at or above level e + offset.
    Else a number's bits, shifted right, say its bucket, counted from the lowest level's: ``starts`` is the
    number of levels in the buckets before, ``edges`` the level inside or infinity; where ``single`` is False,
    a bucket of normal numbers may hold several.
    """

    table: npt.NDArray[Any]
    bits: npt.NDArray[Any]
    middles: npt.NDArray[Any]
    top: int
    smallest: int
    powers: bool
    width: int
    offset: int
    single: bool
    shift: int
    lowest: int
    last: int
    starts: npt.NDArray[np.int32]
    edges: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Levels:
    """What the codes 0, 1, ..., L stand for.

    Args:
        table: 0 and then L positive levels, ascending: float32 or float64 (L + 1,).
        window: how many levels below a row's largest may stand in that row; None: all.

    Example:
        >>> Levels(torch.tensor([0.0, 0.5, 1.0, 2.0])).top
        3
    """

    table: Tensor
    window: int | None = None

    @property
    def top(self) -> int:
        """L."""
        return self.table.shape[0] - 1

    @cached_property
    def lazy(self) -> bool:
        """Whether the window cuts off nothing but numbers below the normal range."""
        if self.window is None or not self.index.powers:
            return False
        return self.top <= self.window or bool(self.index.bits[self.top - self.window] <= self.index.smallest)

    @cached_property
    def index(self) -> Index:
        """What finds levels at once."""
        return _index(self.table.cpu().numpy())


def _index(table: npt.NDArray[Any]) -> Index:
    levels = table[1:]
    width = 23 if table.dtype == np.float32 else 52
    bits: npt.NDArray[Any] = levels.view(np.int32 if width == 23 else np.int64)
    middles = np.maximum((levels / 2).view(bits.dtype), 1)
    mantissas, exponents = np.frexp(levels)
    powers = bool((mantissas == 0.5).all() and (np.diff(exponents) == 1).all())
    shift = width + 3
    while True:
        shift -= 1
        buckets = bits >> shift
        normal = buckets[bits >= 1 << width]
        single = len(np.unique(normal)) == len(normal)
        # One bit more could double the number of buckets.
        if single or 2 * (int(buckets[-1]) - int(buckets[0]) + 2) > _BUCKETS:
            break
    numbers = np.arange(buckets[0], buckets[-1] + 2)
    starts = np.searchsorted(buckets, numbers).astype(np.int32)
    edges = np.full(len(numbers), np.inf, table.dtype)
    edges[buckets - buckets[0]] = levels
    return Index(
        table=np.append(table, table[-1]),
        bits=bits,
        middles=middles,
        top=len(levels),
        smallest=1 << width,
        powers=powers,
        width=width,
        offset=len(levels) - int(bits[-1] >> width),
        single=single,
        shift=shift,
        lowest=int(buckets[0]),
        last=len(numbers) - 2,
        starts=starts,
        edges=edges,
    )


def bracket(x: Tensor, levels: Levels, base: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes of the levels just below and just above each magnitude, |x| on a level counting as below.

    What lies below level ``base + 1`` is between 0 and that level. Above the highest level both codes are
    the highest.

    Args:
        x: (..., d), non-negative, in the levels' dtype.
        levels: their window is not looked at.
        base: int64 (..., 1), or None for 0.

    Returns:
        Two int64 tensors (..., d).
    """
    below = torch.searchsorted(levels.table[1:].contiguous(), x.contiguous(), right=True)
    above = (below + 1).clamp(max=levels.top)
    if base is not None:
        under = below <= base
        below = torch.where(under, 0, below)
        above = torch.where(under, base + 1, above)
    return below, above


def base_below(largest: Tensor, levels: Levels) -> Tensor | None:
    """The level number up to which a row may only hold 0, given its largest magnitude: int64 (..., 1).

    None without a window.
    """
    if levels.window is None:
        return None
    _, above = bracket(largest, levels)
    return (above - levels.window).clamp(min=0)


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
        step: what is rounded; its ``out`` gets ``fl(weight fl(level scale))`` with the sign added.
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
    if (gpu := on_gpu(step.x)) is not None and gpu.takes(step):
        return cast(Tensor, gpu.round_to_levels(step, levels, draw, base=base, scale=scale))
    if not step.compiled:
        return _round_plainly(step, levels, draw, base, scale)
    return compiled_or_plain(
        "rounding",
        lambda loops: _round_rows(loops, step, levels, draw, base, scale),
        lambda: _round_plainly(step, levels, draw, base, scale),
    )


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
    values = levels.table[level] if scale is None else levels.table[level] * scale
    step.add(torch.where(x < 0, -values, values))
    return torch.where(x < 0, -level, level).to(code_dtype(levels.top))


def _round_rows(
    loops: Any, step: Step, levels: Levels, draw: Stream | None, base: Tensor | None, scale: Tensor | None
) -> Tensor:
    if base is None and scale is None and not levels.lazy:
        base = base_below(largest_magnitude(step), levels)
    codes = code_room(step.x.shape, levels.top)
    flat = codes.view(-1, step.d).numpy()
    count = len(flat)
    unknown = -1 if levels.lazy and scale is None else 0
    bases = [unknown] * count if base is None else base.expand(*step.batch, 1).reshape(-1).tolist()
    scales = _divisors_and_factors(scale, count, step.dtype)
    sources = np.empty((count, 0), np.uint64)
    if draw is not None:
        sources = draw.sources(Purpose.ROUNDING, step.batch)
    for row, one, number, source, out in zip(step.rows(), bases, scales, sources, flat, strict=True):
        _round_row(loops, row, levels, one, number, source, by_width(out))
    return codes


def _divisors_and_factors(scale: Tensor | None, count: int, dtype: torch.dtype) -> npt.NDArray[Any]:
    """What magnitudes are divided by, 0 for nothing, and what levels are multiplied by: (count, 2)."""
    if scale is None:
        return torch.tensor([[0.0, 1.0]], dtype=dtype).repeat(count, 1).numpy()
    divisor = torch.where(scale > 0, scale, 1)
    return torch.cat((divisor, scale), dim=-1).reshape(count, 2).numpy()


def _round_row(
    loops: Any,
    row: Row,
    levels: Levels,
    base: int,
    scale: npt.NDArray[Any],
    source: npt.NDArray[np.uint64],
    codes: tuple[npt.NDArray[Any], ...],
) -> None:
    starts = cuts(row.size)
    ends = [*starts[1:], row.size]
    most = [0] * len(starts)

    def work(number: int) -> None:
        # Where a piece stops for want of the base, it goes on from there.
        starts[number], found = loops.round_row(
            row, levels.index, base, scale, source, starts[number], ends[number], codes
        )
        most[number] = max(most[number], found)

    in_threads(work, len(starts))
    if starts != ends:
        rest = (loops.largest(row, *ends_of, row.mask) for ends_of in zip(starts, ends, strict=True))
        base = _base_of(max(*most, *rest), row, levels)
        in_threads(work, len(starts))


def _base_of(bits: int, row: Row, levels: Levels) -> int:
    largest = torch.from_numpy(np.array([bits], row.mask.dtype).view(row.memory.dtype))
    base = base_below(largest, levels)
    return 0 if base is None else int(base)


def round_to_signs(step: Step, scale: Tensor) -> Tensor:
    """Codes 1 and -1 of the signs, that of 0 being plus.

    Args:
        step: what is rounded; its ``out`` gets ``fl(weight scale)`` with the sign added.
        scale: (..., 1).

    Returns:
        int8 (..., d).

    Example:
        >>> round_to_signs(Step(torch.tensor([0.0, -3.0])), torch.tensor([1.5]))
        tensor([ 1, -1], dtype=torch.int8)
    """
    if (gpu := on_gpu(step.x)) is not None and gpu.takes(step):
        return cast(Tensor, gpu.round_to_signs(step, scale))
    if not step.compiled:
        return _signs_plainly(step, scale)
    return compiled_or_plain(
        "rounding", lambda loops: _sign_rows(loops, step, scale), lambda: _signs_plainly(step, scale)
    )


def _signs_plainly(step: Step, scale: Tensor) -> Tensor:
    x = step.numbers()
    step.add(torch.where(x < 0, -scale, scale))
    return torch.where(x < 0, -1, 1).to(code_dtype(1))


def _sign_rows(loops: Any, step: Step, scale: Tensor) -> Tensor:
    codes = code_room(step.x.shape, 1)
    flat = codes.view(-1, step.d).numpy()
    for row, one, out in zip(step.rows(), scale.reshape(-1).numpy(), flat, strict=True):
        starts = cuts(row.size)
        ends = [*starts[1:], row.size]

        def work(number: int, row: Row = row, one: Any = one, out: Any = out) -> None:
            loops.sign_row(row, one, starts[number], ends[number], out)  # noqa: B023

        in_threads(work, len(starts))
    return codes


def largest_magnitude(step: Step) -> Tensor:
    """The largest magnitude of each row: (..., 1) in the accumulation dtype."""
    if (gpu := on_gpu(step.x)) is not None and gpu.takes(step):
        return cast(Tensor, gpu.largest_magnitude(step))

    def plain() -> Tensor:
        return step.numbers().abs().amax(dim=-1, keepdim=True)

    def compiled(loops: Any) -> Tensor:
        bits = [loops.largest(row, 0, row.size, row.mask) for row in step.rows()]
        integer = torch.int64 if step.dtype == torch.float64 else torch.int32
        return torch.tensor(bits, dtype=integer).view(step.dtype).reshape(*step.batch, 1)

    return compiled_or_plain("rows", compiled, plain) if step.compiled else plain()
