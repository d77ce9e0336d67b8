"""Benchmark of senders: EF21's step and its parts, against ``torch.topk`` and reading.

Every time is the smallest of several. The times of one row are measured in turns, so that other load affects
all of them alike. Every result is compared with the plain definition in the same run.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from laconic.bench.timing import Clock
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
from laconic.feedback import DCGD, EF21, Feedback, Sender
from laconic.kernels import get_threads, set_threads, top_k_positions
from laconic.kernels._dispatch import force_reference
from laconic.kernels.reference.selection import top_k_positions_reference
from laconic.layout import Layout
from laconic.messages import Message


@dataclass(frozen=True)
class StepRow:
    """EF21's step: the sender selects among g - h and adds to h.

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
    """A compressor that keeps every number: GB of gradients a second through a sender.

    Args:
        name: the compressor.
        direct: DCGD's sender, which remembers nothing.
        tracked: EF21's, of the difference from a memory, which moves.
        plain: DCGD's in plain PyTorch.
        goal: what the rates ought to be.
        equal: whether messages and memory are those of the definition.
    """

    name: str
    direct: float
    tracked: float
    plain: float
    goal: str
    equal: bool


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
        from laconic.kernels import _dispatch

        if (loops := _dispatch.cpu_kernels("reading")) is not None:
            found["read"] = lambda: loops.read_all(g, h)
    else:
        other = torch.empty_like(g)
        found["copy"] = lambda: other.copy_(g)
    return found


def compressor_of(name: str, share: float) -> Compressor:
    """Top-k, or Top-k of each block of 1024."""
    return BlockTopK(share, 1024) if name.startswith("BlockTopK") else TopK(share)


def sender_of(feedback: Feedback, layout: Layout, memory: Tensor) -> Sender:
    """A sender after its first round, on the memory's device; where it remembers, this."""
    sender = feedback.sender(layout if memory.device.type == "cpu" else memory)
    state = {**sender.state_dict(), "round": 1}
    sender.load_state_dict(state | {"memory": memory} if "memory" in state else state)
    return sender


def step_of(sender: Sender, gradient: Tensor) -> Message:
    """One round of a sender."""
    message = sender.stage(gradient)
    sender.commit()
    return message


def measure_step(
    name: str, d: int, share: float, count: int, goal: str, repeats: int, device: torch.device
) -> StepRow:
    """One row of the first table."""
    g, h = pair(d, device)
    feedback, layout, k = EF21(compressor_of(name, share)), Layout.flat(d), TopK(share).kept(d)
    with threads(count):
        naive, sender = h.clone(), sender_of(feedback, layout, h)
        floors = reading(device, g, h)
        least = Clock(device).in_turns(
            {"topk": lambda: with_torch_topk(g, naive, k), "ours": lambda: step_of(sender, g), **floors},
            repeats,
        )
        equal = _is_defined(feedback, layout, g, h)
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


def _is_defined(feedback: Feedback, layout: Layout, g: Tensor, h: Tensor) -> bool:
    """Whether message and memory are those of the plain loops."""
    sender, other = (sender_of(feedback, layout, h) for _ in range(2))
    found = step_of(sender, g).dense()
    with force_reference():
        defined = step_of(other, g).dense()
    mine, theirs = sender.state_dict(), other.state_dict()
    alike = all(torch.equal(v, theirs[key]) for key, v in mine.items() if isinstance(v, Tensor))
    return alike and torch.equal(found, defined)


def measure_small(d: int, goal: str, repeats: int) -> SmallRow:
    """One row of the second table: 1 % kept, one thread."""
    x, k = pair(d, torch.device("cpu"))[0], TopK(0.01).kept(d)
    with threads(1):
        least = Clock(x.device).in_turns(
            {"ours": lambda: top_k_positions(x, k), "topk": lambda: torch.topk(x.abs(), k, sorted=False)},
            100 * repeats,
        )
    equal = torch.equal(top_k_positions(x, k), top_k_positions_reference(x, k))
    return SmallRow(d, 1e6 * least["ours"], 1e6 * least["topk"], goal, equal)


def measure_many(
    d: int, ways: Mapping[str, tuple[Compressor, Layout, str]], repeats: int, device: torch.device
) -> list[ManyRow]:
    """The same numbers in one segment and in other ways, each with its goal, measured in turns."""
    g, h = pair(d, device)
    ways = {"one segment": (TopK(0.01), even(d, 1), ""), **ways}
    senders = {name: sender_of(EF21(how), layout, h) for name, (how, layout, _) in ways.items()}

    def step(name: str) -> Callable[[], object]:
        return lambda: step_of(senders[name], g)

    least = Clock(device).in_turns({name: step(name) for name in ways}, repeats)
    return [
        ManyRow(
            name,
            d,
            1e3 * least[name],
            least[name] / least["one segment"],
            goal,
            _is_defined(EF21(how), layout, g, h),
        )
        for name, (how, layout, goal) in ways.items()
    ]


def even(total: int, segments: int) -> Layout:
    """Segments of about one length."""
    edges = [total * i // segments for i in range(segments + 1)]
    return Layout.of({f"s{i}": (b - a,) for i, (a, b) in enumerate(pairwise(edges))})


RATES: tuple[tuple[str, Compressor, str], ...] = (
    ("natural, to the nearest", BiasedRounding(2.0), "direct ≥ 4"),
    ("natural, unbiased", NaturalCompression(), "direct ≥ 1"),
    ("grid of 4 levels an octave", BiasedRounding(grid=(1.0, 1.25, 1.5, 1.75, 2.0)), ""),
    ("random dithering, 8 levels", RandomDithering(8), ""),
    ("scaled sign", ScaledSign(), ""),
    ("4 bits in blocks of 1024", BlockQuantizer(4), ""),
)


def measure_rate(name: str, compressor: Compressor, goal: str, d: int, repeats: int) -> RateRow:
    """One row of the last table, on one thread."""
    g, h = pair(d, torch.device("cpu"))
    layout = Layout.flat(d)
    methods: dict[str, Feedback] = {
        "direct": DCGD(compressor),
        "tracked": EF21(compressor.contractive()),
    }
    with threads(1):
        senders = {way: sender_of(method, layout, h) for way, method in methods.items()}
        least = Clock(g.device).in_turns(
            {
                "direct": lambda: step_of(senders["direct"], g),
                "tracked": lambda: step_of(senders["tracked"], g),
            },
            repeats,
        )
        with force_reference():
            slow = Clock(g.device).seconds(lambda: step_of(senders["direct"], g))
        equal = all(_is_defined(method, layout, g, h) for method in methods.values())
    rate = 4e-9 * d
    return RateRow(name, rate / least["direct"], rate / least["tracked"], rate / slow, goal, equal)
