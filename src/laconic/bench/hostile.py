"""Benchmark of selection on adversarial data, against normal numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from laconic.bench.kernels import even, threads
from laconic.bench.timing import Clock
from laconic.compressors import BlockTopK, TopK
from laconic.kernels import SelectionTable, _dispatch, select_segments
from laconic.kernels.tables import Vectors

_SEGMENTS = 640
_SALT = 1


@dataclass(frozen=True)
class HostileRow:
    """Times, as multiples of those of normal numbers; 1 % kept, one thread.

    Args:
        name: what the numbers are.
        first: one segment, in a first round, which has no other to guess from.
        segments: 640 segments, in later rounds.
        blocks: blocks of 1024, in later rounds.
        goal: what the multiples ought to be.
        equal: whether positions and values are those of the definition.
    """

    name: str
    first: float
    segments: float
    blocks: float
    goal: str
    equal: bool


def _normal(d: int) -> Tensor:
    return torch.randn(d, generator=torch.Generator().manual_seed(d))


def _where_the_sample_looks(d: int) -> Tensor:
    """Normal numbers, large exactly where a first round looks: its bound comes out far too high."""
    x = _normal(d)
    if (loops := _dispatch.cpu_kernels("topk_bounds")) is not None:
        x[torch.from_numpy(loops.sampled_places(d, d // 100, _SALT))] = 100.0
    return x


HOSTILE: dict[str, Callable[[int], Tensor]] = {
    "all zero": torch.zeros,
    "all equal": lambda d: torch.full((d,), -2.0),
    "sorted": lambda d: torch.arange(d, dtype=torch.float32),
    "few values": lambda d: _normal(d).round(),
    "one huge": lambda d: torch.where(torch.arange(d) == d // 3, 1e30, 0.0),
    "subnormal": lambda d: _normal(d) * 1e-40,
    "heavy tails": lambda d: _normal(d) ** 7,
    "half zero, in runs": lambda d: _normal(d) * (torch.arange(d) // 5000 % 2),
    "large where sampled": _where_the_sample_looks,
}


def measure_hostile(name: str, d: int, goal: str, repeats: int) -> HostileRow:
    """One row."""
    vectors = {"normal": _normal(d), "hostile": HOSTILE[name](d)}
    runs: dict[str, Callable[[], object]] = {}
    for kind, x in vectors.items():
        runs[f"{kind} first"] = partial(_first_round, x)
        runs[f"{kind} segments"] = partial(_select, x, _segments(d, _SEGMENTS))
        runs[f"{kind} blocks"] = partial(_select, x, _blocks(d))
    with threads(1):
        least = Clock().in_turns(runs, 4 * repeats)
        every = (_segments(d, 1), _segments(d, _SEGMENTS), _blocks(d))
        equal = all(_is_defined(vectors["hostile"], cuts) for cuts in every)
    ways = ("first", "segments", "blocks")
    ratios = {way: least[f"hostile {way}"] / least[f"normal {way}"] for way in ways}
    return HostileRow(name, **ratios, goal=goal, equal=equal)


def _segments(total: int, count: int) -> SelectionTable:
    """Segments of about one length, of which each keeps 1 %."""
    segments = even(total, count).segments
    kept = [TopK(0.01).kept(s.numel) for s in segments]
    return SelectionTable.of([s.offset for s in segments], [s.numel for s in segments], kept)


def _blocks(d: int) -> SelectionTable:
    """One segment in blocks of 1024."""
    block = BlockTopK(0.01, 1024)
    length, count = block.cells(d)
    return SelectionTable.of(
        [0], [d], count, block=length, last=block.kept_of(d % length) if d % length else 0
    )


def _select(x: Tensor, cuts: SelectionTable, salt: int = 0) -> tuple[Tensor, Tensor]:
    found = select_segments(Vectors.flat(x, cuts.starts), None, cuts, salt=salt)
    return found.positions, found.values


def _first_round(x: Tensor) -> None:
    # A table holds what the round before left to guess from, so this one is new.
    _select(x, _segments(x.numel(), 1), _SALT)


def _is_defined(x: Tensor, cuts: SelectionTable) -> bool:
    found = _select(x, cuts, _SALT)
    with _dispatch.force_reference():
        defined = _select(x, cuts)
    return all(map(torch.equal, found, defined))
