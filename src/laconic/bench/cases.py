"""Settings, methods, layouts, gradients and rows of the benchmark of the exchange."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import laconic

from .timing import WARM_UP, Times, median

METHODS: dict[str, Any] = {
    "ef21": laconic.EF21(laconic.TopK(0.01) >> laconic.Cast(torch.bfloat16)),
    "ef14": laconic.EF14(laconic.TopK(0.01) >> laconic.ScaledSign()),
}
EXEMPT = 256
"""Numbers of an exempt segment."""
MOST = 16
"""Largest number of ranks."""

Progress = Callable[[str], None]
"""Called with a note before each piece of work."""


def no_progress(_: object) -> None:
    """Drop the note."""


@dataclass(frozen=True)
class BenchSettings:
    """Cases of the benchmark.

    Args:
        dims: lengths of the vector.
        segments: segments of the layouts; one segment is always among them.
        nodes: numbers of ranks of the simulated exchange, 2 to 16.
        methods: names in ``METHODS``.
        repeats: rounds, whose median counts.
        processes: ranks of an exchange over real processes, which is then measured instead; 0 for none.

    Raises:
        ValueError: for an unknown method, or numbers that are out of range.
    """

    dims: tuple[int, ...] = (10_000_000, 400_000)
    segments: tuple[int, ...] = (1, 30, 150, 640)
    nodes: tuple[int, ...] = (4, 8)
    methods: tuple[str, ...] = ("ef21", "ef14")
    repeats: int = 11
    processes: int = 0

    def __post_init__(self) -> None:
        """Check, and remove duplicates."""
        object.__setattr__(self, "segments", tuple(sorted({1, *self.segments})))
        for name in ("dims", "nodes", "methods"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"unknown method {method!r}; known are: {', '.join(METHODS)}")
        if not all(2 <= n <= MOST for n in (*self.nodes, self.processes or 2)):
            raise ValueError(f"an exchange is measured with 2 to {MOST} ranks")
        if min(self.segments[0], self.repeats) < 1:
            raise ValueError("there must be at least one segment and one repeat")
        if min(self.dims) < self.segments[-1]:
            raise ValueError(f"{min(self.dims)} numbers cannot be cut into {self.segments[-1]} segments")

    @property
    def rounds(self) -> int:
        """Rounds that are made."""
        return WARM_UP + self.repeats

    @property
    def cases(self) -> list[tuple[str, int]]:
        """Method and d of each table."""
        return [(method, d) for d in self.dims for method in self.methods]

    def layouts(self, d: int) -> dict[int, laconic.Layout]:
        """The layouts by their number of segments, the first of one segment."""
        return {segments: make_layout(d, segments) for segments in self.segments}


def make_layout(d: int, segments: int) -> laconic.Layout:
    """One segment; or, as in a transformer, matrices that share d, and half as many exempt vectors."""
    matrices = max(1, segments * 2 // 3)
    exempt = [f"b{i}" for i in range(segments - matrices)]
    shapes = {}
    for i in range(matrices):
        shapes[f"w{i}"] = (d // matrices,)
        if i < len(exempt):
            shapes[exempt[i]] = (EXEMPT,)
    return laconic.Layout.of(shapes, bfloat16=exempt)


def format_of(feedback: Any, layout: laconic.Layout, round: int) -> Any:
    """The format of a round's messages, for ``expect=``.

    Versions of the library without ``feedback.format`` have ``laconic.wire.Schema``.
    """
    if hasattr(feedback, "format"):
        return feedback.format(layout, torch.float32, round)
    schema: Any = getattr(laconic.wire, "Schema", None)
    return schema.of(layout, feedback.compressor)


class Gradients:
    """A fixed vector for each node, with noise that changes by the round.

    Both are stretches of random vectors that are drawn once, since drawing takes longer than a step.
    """

    def __init__(self, layouts: Mapping[int, laconic.Layout]) -> None:
        """Draw for the longest of the layouts."""
        self._length = max(layout.d for layout in layouts.values())
        generator = torch.Generator().manual_seed(self._length)
        self._fixed = torch.randn(self._length + 1009 * MOST, generator=generator)
        self._noise = torch.randn(self._length + 1009 * MOST + 997 * 128, generator=generator)

    def of(self, node: int, round: int) -> Tensor:
        """A new float32 tensor as long as the longest layout."""
        fixed, noise = 1009 * node, 1009 * node + 997 * (round % 128)
        return 0.3 * self._noise[noise : noise + self._length] + self._fixed[fixed : fixed + self._length]


@dataclass(frozen=True)
class StepRow:
    """A step with one layout: medians over rounds.

    Args:
        method: the method's name.
        d: length of the vector, without the exempt segments.
        nodes: ranks.
        segments: segments.
        phases: milliseconds by phase.
        ms: milliseconds of the whole step.
        ratio: its time over that of one segment in the same round.
        cpu_ms: milliseconds of processor time of the whole step, which other programs change less.
        cpu_ratio: its processor time over that of one segment in the same round.
    """

    method: str
    d: int
    nodes: int
    segments: int
    phases: dict[str, float]
    ms: float
    ratio: float
    cpu_ms: float
    cpu_ratio: float


def step_rows(
    case: tuple[str, int],
    nodes: int,
    phases: Mapping[int, Sequence[Mapping[str, float]]],
    totals: Mapping[int, Times],
) -> list[StepRow]:
    """A row for each layout, of the seconds of all rounds by the number of segments."""
    rows = []
    for segments, taken in phases.items():
        shares = {name: 1e3 * median([round[name] for round in taken]) for name in taken[0]}
        total = totals[segments]
        ratio, cpu_ratio = total.ratios(totals[1])
        times = 1e3 * median(total.wall), ratio, 1e3 * median(total.cpu), cpu_ratio
        rows.append(StepRow(*case, nodes, segments, shares, *times))
    return rows


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch and for the library's loops."""
    threads, wish = torch.get_num_threads(), os.environ.get("LACONIC_THREADS")
    torch.set_num_threads(1)
    os.environ["LACONIC_THREADS"] = "1"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["LACONIC_THREADS"]
        if wish is not None:
            os.environ["LACONIC_THREADS"] = wish
