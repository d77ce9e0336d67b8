"""Selection among data that breaks shortcuts, against selection among normal numbers, measured in turns."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from laconic.cli._kernel_bench import Clock, cuts_of, even, threads
from laconic.kernels import Cuts, _choice, top_k_segments

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
    if (loops := _choice.loops("candidates")) is not None:
        places = torch.empty(loops.MOST_SAMPLES + 64, dtype=torch.int32).numpy()
        begin, size = torch.zeros(1, dtype=torch.int64).numpy(), torch.zeros(1, dtype=torch.int64).numpy()
        numbers = torch.arange(d, dtype=torch.int32).numpy()  # whose bits are their places
        loops.sampled_bound(numbers, None, 0, d, d // 100, _SALT, 0x7FFFFFFF, places, begin, size)
        x[torch.from_numpy(places[: int(size[0])]).long()] = 100.0
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
        runs[f"{kind} segments"] = partial(top_k_segments, x, None, even(d, _SEGMENTS))
        runs[f"{kind} blocks"] = partial(top_k_segments, x, None, cuts_of("BlockTopK", d, 0.01))
    with threads(1):
        least = Clock(torch.device("cpu")).in_turns(runs, 4 * repeats)
        every = (even(d, 1), even(d, _SEGMENTS), cuts_of("BlockTopK", d, 0.01))
        equal = all(_is_defined(vectors["hostile"], cuts) for cuts in every)
    ways = ("first", "segments", "blocks")
    ratios = {way: least[f"hostile {way}"] / least[f"normal {way}"] for way in ways}
    return HostileRow(name, **ratios, goal=goal, equal=equal)


def _first_round(x: Tensor) -> None:
    # Cuts hold what the round before left to guess from, so these are new.
    top_k_segments(x, None, even(x.numel(), 1), salt=_SALT)


def _is_defined(x: Tensor, cuts: Cuts) -> bool:
    found = top_k_segments(x, None, cuts, salt=_SALT)
    with _choice.plainly():
        defined = top_k_segments(x, None, cuts)
    return all(map(torch.equal, found, defined))
