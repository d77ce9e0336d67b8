"""Timing of functions in turns, by the clock and by processor time, and of GPU work."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

WARM_UP = 3
"""Rounds of ``Times`` that do not count: EF21's dense one, and those in which memory is first touched."""


class Clock:
    """Seconds of functions on a device, until the work that they started has ended."""

    def __init__(self, device: torch.device | None = None) -> None:
        """The clock of a device; by default of the CPU."""
        self._cuda = device is not None and device.type == "cuda"

    def seconds(self, run: Callable[[], object]) -> float:
        """Seconds of one run."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def fastest(self, run: Callable[[], object], repeats: int) -> float:
        """The smallest time of several runs: what the machine can do when nobody else uses it."""
        return min(self.seconds(run) for _ in range(repeats))

    def in_turns(self, runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
        """The smallest time of each, after one run that does not count."""
        least = dict.fromkeys(runs, math.inf)
        for number in range(repeats + 1):
            for name, run in runs.items():
                taken = self.seconds(run)
                if number:
                    least[name] = min(least[name], taken)
        return least


@dataclass
class Times:
    """Seconds of each round, by the clock and of processor time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, run: Callable[[], object]) -> None:
        """Time one more run, by processor time of all threads of the process."""
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    def ratios(self, other: "Times") -> tuple[float, float]:
        """Medians of the ratios to the other's, round by round, so that other load affects both alike."""
        wall, cpu = zip(self.wall, other.wall, strict=True), zip(self.cpu, other.cpu, strict=True)
        return median([a / b for a, b in wall]), median([a / b for a, b in cpu])


def median(values: list[float]) -> float:
    """The median of the rounds after the first ``WARM_UP``."""
    return statistics.median(values[WARM_UP:])
