"""Inputs of kernels that read all numbers once: segments of a group or rows, and their shares for threads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.philox import Purpose, Stream
from laconic.kernels.tables import PIECE, Integers, SegmentTable, Vectors, accumulation_dtype, bounds_of

T = TypeVar("T")

_SHARE = 1 << 16
"""Numbers that are worth a thread."""
_UNIT = 4096
"""Long segments are cut between threads at multiples of it: a block of canonical sums."""
_MASKS: dict[torch.dtype, npt.NDArray[Any]] = {
    torch.float32: np.array([0x7FFFFFFF], np.int32),
    torch.float64: np.array([0x7FFFFFFFFFFFFFFF], np.int64),
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_LONG = 1024
"""Rows from this length on go through compiled loops; for many shorter ones PyTorch is as fast."""


class Reading(NamedTuple):
    """Segments for compiled loops, which see ``x - memory`` as one row of columns; what is absent is empty.

    Args:
        x: float32 or float64; empty where ``short`` is not.
        short: int16, the bits of bfloat16 numbers.
        memory: what is subtracted, float32 or float64.
        x_starts: int64 (S,) where each segment lies in ``x`` or ``short``.
        memory_starts: int64 (S,) where it lies in ``memory``.
        bounds: int64 (S + 1,), segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``.
        mask: one integer as wide as the accumulation dtype that clears the sign.
    """

    x: npt.NDArray[Any]
    short: npt.NDArray[np.int16]
    memory: npt.NDArray[Any]
    x_starts: Integers
    memory_starts: Integers
    bounds: Integers
    mask: npt.NDArray[Any]

    @property
    def dtype(self) -> torch.dtype:
        """The accumulation dtype."""
        return torch.float32 if self.mask.dtype == np.int32 else torch.float64

    @property
    def segments(self) -> int:
        """S."""
        return len(self.x_starts)

    @property
    def columns(self) -> int:
        """The columns of all segments."""
        return int(self.bounds[-1])

    def room(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Room for the numbers of a piece, and the same memory seen as integers."""
        numbers = np.empty(PIECE, self.memory.dtype)
        return numbers, numbers.view(self.mask.dtype)


@dataclass(frozen=True, eq=False)
class SegmentedInput:
    """What is compressed of each segment of a group: x, or ``x - memory``, wherever it lies.

    Args:
        x: float32, float64, bfloat16 or float16; only read.
        numels: int64 (S,), the segments' lengths.
        numbers: int64 (S,), each segment's number in the whole layout, which keys its draws.
        memory: in x's accumulation dtype, or None; only read.

    Raises:
        ValueError: where tables differ in length, or a segment does not lie inside its array.
        TypeError: for other dtypes.

    Example:
        >>> table = SegmentTable((0, 2), (2, 1), (2, 1), (0, 1))
        >>> inp = SegmentedInput.of(Vectors.flat(torch.tensor([3.0, 5.0, 7.0]), table.start_array), table)
        >>> [row.tolist() for row in inp.rows()]
        [[3.0, 5.0], [7.0]]
    """

    x: Vectors
    numels: Integers
    numbers: Integers
    memory: Vectors | None = None

    def __post_init__(self) -> None:
        """Check what would read beyond the arrays."""
        for one in (self.x,) if self.memory is None else (self.x, self.memory):
            lengths, numbers, starts = len(self.numels), len(self.numbers), len(one.starts)
            if not lengths == numbers == starts:
                raise ValueError(f"{lengths} lengths, {numbers} numbers and {starts} starts of segments")
            if one.on_device or not len(one.starts):
                continue
            if int((one.starts + self.numels).max()) > one.array.size:
                raise ValueError(f"a segment ends beyond its array of {one.array.size} numbers")
        if self.x.dtype not in _DTYPES:
            raise TypeError(f"x must be float32, float64, bfloat16 or float16, got {self.x.dtype}")
        if self.memory is not None and self.memory.dtype != self.dtype:
            raise TypeError(f"a memory of {self.x.dtype} numbers is {self.dtype}, got {self.memory.dtype}")

    @classmethod
    def of(cls, x: Vectors, table: SegmentTable, memory: Vectors | None = None) -> "SegmentedInput":
        """The whole segments of a table."""
        return cls(x, table.numel_array, table.number_array, memory)

    @classmethod
    def of_kept(cls, values: Tensor, table: SegmentTable) -> "SegmentedInput":
        """Columns (K,) that a sparsifier kept of a table's segments, to be compressed once more."""
        return cls(Vectors.flat(values, table.bounds[:-1]), table.kept_array, table.number_array)

    @property
    def dtype(self) -> torch.dtype:
        """The accumulation dtype."""
        return accumulation_dtype(self.x.dtype)

    @property
    def bounds(self) -> Integers:
        """int64 (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``."""
        return bounds_of(self.numels)

    @property
    def like(self) -> Tensor:
        """A tensor on the device of x."""
        return self.x.owners[0]

    def rows(self) -> list[Tensor]:
        """The numbers of each segment, x or ``fl(x - memory)``, in the accumulation dtype."""
        rows = [self.x.segment(s, n) for s, n in enumerate(self.numels.tolist())]
        if self.memory is not None:
            rows = [row - self.memory.segment(s, len(row)) for s, row in enumerate(rows)]
        return [row.to(self.dtype) for row in rows]

    def concatenated(self, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        """``function`` of each segment's numbers, one result after another, in the dtype that it returns."""
        rows = [function(row).reshape(-1) for row in self.rows()]
        return torch.cat([torch.empty(0, dtype=dtype, device=self.like.device), *rows])

    def reading(self) -> Reading:
        """The same for compiled loops."""
        x, short = self.x, self.x.dtype == torch.bfloat16
        if x.dtype == torch.float16:
            # Too rare for loops of its own: the one dtype of which a copy is made.
            whole = SegmentedInput(x, self.numels, self.numbers).concatenated(lambda row: row, torch.float32)
            x = Vectors.flat(whole, self.bounds[:-1])
        nothing = np.empty(0, np.float64 if self.dtype == torch.float64 else np.float32)
        return Reading(
            x=nothing if short else x.array,
            short=x.array if short else np.empty(0, np.int16),
            memory=nothing if self.memory is None else self.memory.array,
            x_starts=x.starts,
            memory_starts=x.starts if self.memory is None else self.memory.starts,
            bounds=self.bounds,
            mask=_MASKS[self.dtype],
        )

    def sources(self, draw: Stream, purpose: Purpose) -> npt.NDArray[np.uint64]:
        """What each segment draws from: ``draw.at(number).sources`` for every number, uint64 (S, 23)."""
        table = np.repeat(draw.sources(purpose, torch.Size(())), len(self.numbers), axis=0)
        table[:, 20] = self.numbers
        return table


def reading_of(x: Tensor) -> Reading:
    """The rows of a contiguous tensor (..., d) as segments of one length."""
    d = x.shape[-1]
    rows = x.numel() // d
    seen = Vectors.flat(x.view(-1), np.arange(rows) * d)
    return SegmentedInput(seen, np.full(rows, d), np.zeros(rows, np.int64)).reading()


def dispatch_rows(
    name: str,
    x: Tensor,
    cpu: Callable[[Any], T],
    reference: Callable[[], T],
    gpu: Callable[[Any], Any] | None,
) -> T:
    """As :func:`laconic.kernels._dispatch.dispatch`, of a kernel that reads rows (..., d)."""
    fits = x.dtype in (torch.float32, torch.float64, torch.bfloat16) and x.is_contiguous()
    long = fits and x.device.type == "cpu" and x.shape[-1] >= _LONG
    real = x.is_floating_point()
    return dispatch(name, cpu if long else None, reference, gpu=gpu if real else None, tensor=x)


def block_bounds(bounds: Integers, block: int) -> Integers:
    """int64 (S + 1,): segment s owns the blocks of ``block`` columns from [s] to [s + 1]."""
    return bounds_of(-(-np.diff(bounds) // block))


def in_shares(bounds: Integers, work: Any, unit: int = _UNIT) -> list[Any]:
    """``work(first segment, first column, last column)`` for shares of all columns, side by side.

    A share begins where a segment begins or a multiple of ``unit`` columns later.

    Returns:
        What each call returned.
    """
    total = int(bounds[-1])
    count = max(1, min(get_threads(), total // _SHARE))
    ends = total * np.arange(count + 1) // count
    segments = np.searchsorted(bounds, ends[:-1], side="right") - 1
    within = ends[:-1] - bounds[segments]
    ends[:-1] = bounds[segments] + within // unit * unit
    found: list[Any] = [None] * count

    def task(number: int) -> None:
        found[number] = work(int(segments[number]), int(ends[number]), int(ends[number + 1]))

    if total:
        in_threads(task, count)
    return found if total else []
