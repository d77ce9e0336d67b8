"""Accounting of the time spent waiting in collectives, by the rank that arrived last."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.comm._stats import Counter

TAIL_BYTES = 8
"""Bytes behind what a rank sends: how long it had worked, in microseconds, and its word; two int32."""

_LONGEST = 2**31 - 1


class Arrivals:
    """Compares how long the ranks worked since the last collective, which all leave at about the same time.

    Durations travel, not points in time, for the clocks of machines differ. The rank that worked longest came
    last, and what another worked less is what it waited, at most the time that it spent in the collective.
    Ranks that leave a collective one after another, on links of unlike speed, blur this by that difference.
    """

    def __init__(self, rank: int, size: int, counter: Counter) -> None:
        """Begin where the ranks have just made their process group."""
        self._rank = rank
        self._counter = counter
        self._left = time.perf_counter_ns()
        self._entered = self._left
        counter.waited_for = [0.0] * size

    def enter(self, word: int) -> Tensor:
        """uint8 (8,) for the other ranks: how long this one worked since it left the last collective.

        Args:
            word: what else they are told: 31 bits, or a negative number.
        """
        self._entered = time.perf_counter_ns()
        worked = min((self._entered - self._left) // 1000, _LONGEST)
        return torch.tensor([worked, word], dtype=torch.int32, device="cpu").view(torch.uint8)

    def leave(self, worked: Sequence[int], *, counted: bool = True) -> None:
        """Count the wait, with the microseconds that each rank said at its enter.

        Args:
            worked: what each rank said.
            counted: whether the wait belongs to a step; else no time is counted.
        """
        self._left = time.perf_counter_ns()
        if not counted:
            return
        last = max(range(len(worked)), key=worked.__getitem__)
        waited = min(1000 * (worked[last] - worked[self._rank]), self._left - self._entered)
        self._counter.waited_for[last] += 1e-9 * waited
