"""What ``laconic bench kernels`` measures: EF21's step and its parts, against ``torch.topk`` and reading.

Every time is the smallest of several; what stands in one row was measured in turns, so that a slower moment
of the machine meets all of it. Every result is held against the plain definition in the same run.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from laconic.compressors import (
    BiasedRounding,
    BlockQuantizer,
    BlockTopK,
    Compressor,
    NaturalCompression,
    RandomDithering,
    ScaledSign,
    TopK,
)
from laconic.kernels import Cuts, Stream, get_threads, move_top_k_, set_threads, top_k_positions
from laconic.kernels._choice import plainly
from laconic.kernels.selection import top_k_reference


@dataclass(frozen=True)
class StepRow:
    """EF21's step: select among g - h, add to h.

    Args:
        name: what is kept.
        d: numbers.
        threads: of laconic and of PyTorch.
        ms: milliseconds.
        topk: how many times longer the same step with ``torch.topk`` takes.
        floor: how many times longer this takes than reading g and h.
        goal: what the ratios ought to be.
        equal: whether positions, values and memory are those of the definition.
    """

    name: str
    d: int
    threads: int
    ms: float
    topk: float
    floor: float
    goal: str
    equal: bool


@dataclass(frozen=True)
class SmallRow:
    """Positions of the largest of a short vector: microseconds, and those of ``torch.topk``."""

    d: int
    us: float
    topk_us: float
    goal: str
    equal: bool


@dataclass(frozen=True)
class ManyRow:
    """Numbers cut into segments or blocks: the time of EF21's step against that of one segment."""

    name: str
    d: int
    ms: float
    ratio: float
    goal: str
    equal: bool


@dataclass(frozen=True)
class RateRow:
    """A compressor that keeps every number: GB of its input a second, alone and as EF21's step."""

    name: str
    encode: float
    track: float
    plain: float
    goal: str
    equal: bool


class Clock:
    """Times on a device: what was started there has ended."""

    def __init__(self, device: torch.device) -> None:
        """Remember the device."""
        self.device = device

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one run."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def in_turns(self, runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
        """The smallest time of each, after one run that does not count."""
        least = dict.fromkeys(runs, math.inf)
        for number in range(repeats + 1):
            for name, run in runs.items():
                taken = self.seconds(run)
                if number:
                    least[name] = min(least[name], taken)
        return least


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads for laconic and for PyTorch."""
    before = get_threads(), torch.get_num_threads()
    set_threads(count)
    torch.set_num_threads(count)
    try:
        yield
    finally:
        set_threads(before[0])
        torch.set_num_threads(before[1])


def pair(d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A gradient, and a memory that is near it."""
    generator = torch.Generator().manual_seed(d)
    g = torch.randn(d, generator=generator)
    h = g + 0.5 * torch.randn(d, generator=generator)
    return g.to(device), h.to(device)


def with_torch_topk(g: Tensor, h: Tensor, k: int) -> None:
    """EF21's step as it is usually written."""
    x = g - h
    places = torch.topk(x.abs(), k, sorted=False).indices
    h[places] += x[places]


def reading(device: torch.device, g: Tensor, h: Tensor) -> dict[str, Callable[[], object]]:
    """Ways to read both vectors and do nothing; on a GPU also a copy of one onto the other."""
    found: dict[str, Callable[[], object]] = {"sum": lambda: (g.sum(), h.sum())}
    if device.type == "cpu":
        from laconic.kernels import _choice

        if (loops := _choice.loops("reading")) is not None:
            found["read"] = lambda: loops.read_all(g, h)
    else:
        other = torch.empty_like(g)
        found["copy"] = lambda: other.copy_(g)
    return found


def cuts_of(name: str, d: int, share: float) -> Cuts:
    """One segment, whole or in blocks of 1024."""
    if name.startswith("BlockTopK"):
        block = BlockTopK(share, 1024)
        length, count = block.cells(d)
        return Cuts.of([0], [d], count, block=length, last=block.kept_of(d % length) if d % length else 0)
    return Cuts.of([0], [d], TopK(share).kept(d))


def measure_step(
    name: str, d: int, share: float, count: int, goal: str, repeats: int, device: torch.device
) -> StepRow:
    """One row of the first table."""
    g, h = pair(d, device)
    cuts, k = cuts_of(name, d, share), TopK(share).kept(d)
    with threads(count):
        naive, ours = h.clone(), h.clone()
        round_ = 0

        def step() -> None:
            nonlocal round_
            round_ += 1
            move_top_k_(ours, cuts, g, salt=round_)

        floors = reading(device, g, h)
        least = Clock(device).in_turns(
            {"topk": lambda: with_torch_topk(g, naive, k), "ours": step, **floors}, repeats
        )
        equal = _is_defined(g, h, cuts)
    floor = min(least[way] for way in floors)
    return StepRow(
        f"{name} {100 * share:g} %",
        d,
        count,
        1e3 * least["ours"],
        least["topk"] / least["ours"],
        least["ours"] / floor,
        goal,
        equal,
    )


def _is_defined(g: Tensor, h: Tensor, cuts: Cuts) -> bool:
    memory, expected = h.clone(), h.clone()
    found = move_top_k_(memory, cuts, g)
    with plainly():
        defined = move_top_k_(expected, cuts, g)
    return all(map(torch.equal, (*found, memory), (*defined, expected)))


def measure_small(d: int, goal: str, repeats: int) -> SmallRow:
    """One row of the second table: 1 % kept, one thread."""
    x, k = pair(d, torch.device("cpu"))[0], TopK(0.01).kept(d)
    with threads(1):
        least = Clock(x.device).in_turns(
            {"ours": lambda: top_k_positions(x, k), "topk": lambda: torch.topk(x.abs(), k, sorted=False)},
            100 * repeats,
        )
    equal = torch.equal(top_k_positions(x, k), top_k_reference(x, k))
    return SmallRow(d, 1e6 * least["ours"], 1e6 * least["topk"], goal, equal)


def measure_many(
    d: int, layouts: dict[str, tuple[Cuts, str]], repeats: int, device: torch.device
) -> list[ManyRow]:
    """The same numbers in one segment and in other layouts, each with its goal, measured in turns."""
    g, h = pair(d, device)
    layouts = {"one segment": (even(d, 1), ""), **layouts}
    memories = {name: h.clone() for name in layouts}

    def step(name: str) -> Callable[[], object]:
        return lambda: move_top_k_(memories[name], layouts[name][0], g, salt=1)

    least = Clock(device).in_turns({name: step(name) for name in layouts}, repeats)
    return [
        ManyRow(name, d, 1e3 * least[name], least[name] / least["one segment"], goal, _is_defined(g, h, cuts))
        for name, (cuts, goal) in layouts.items()
    ]


def even(total: int, segments: int) -> Cuts:
    """Segments of about one length, of which each keeps 1 %."""
    edges = [total * i // segments for i in range(segments + 1)]
    lengths = [b - a for a, b in pairwise(edges)]
    return Cuts.of(edges[:-1], lengths, [TopK(0.01).kept(length) for length in lengths])


RATES: tuple[tuple[str, Compressor, str], ...] = (
    ("natural, to the nearest", BiasedRounding(2.0), "encode ≥ 4"),
    ("natural, unbiased", NaturalCompression(), "encode ≥ 1"),
    ("grid of 4 levels an octave", BiasedRounding(grid=(1.0, 1.25, 1.5, 1.75, 2.0)), ""),
    ("random dithering, 8 levels", RandomDithering(8), ""),
    ("scaled sign", ScaledSign(), ""),
    ("4 bits in blocks of 1024", BlockQuantizer(4), ""),
)


def measure_rate(name: str, compressor: Compressor, goal: str, d: int, repeats: int) -> RateRow:
    """One row of the third table, on one thread."""
    g, h = pair(d, torch.device("cpu"))
    draw = Stream(seed=1, round=2)
    memory = h.clone()
    with threads(1):
        runs: dict[str, Callable[[], object]] = {
            "encode": lambda: compressor.encode(g, draw),
            "track": lambda: compressor.track_(memory, g, draw),
        }
        least = Clock(g.device).in_turns(runs, repeats)
        found = compressor.encode(g, draw)
        with plainly():
            slow = Clock(g.device).seconds(lambda: compressor.encode(g, draw))
            expected = compressor.encode(g, draw)
    rate = 4e-9 * d
    return RateRow(
        name,
        rate / least["encode"],
        rate / least["track"],
        rate / slow,
        goal,
        torch.equal(found.dense(), expected.dense()),
    )
