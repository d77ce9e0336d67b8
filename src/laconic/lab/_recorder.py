"""Recorder of norms, bits and last iterates while runs go on."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.compressors import Identity
from laconic.formats import MessageFormat
from laconic.lab._result import Direction
from laconic.lab._simulation import ACCOUNTINGS
from laconic.lab._types import Array
from laconic.messages import Accounting, Message

Runs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_Sizes = dict[Accounting, Array]

_ARRAYS = 1 + 2 * len(ACCOUNTINGS)
"""Norms, and the bits of each kind in both directions."""


def check_rounds(rounds: int, runs: int, results: int = 1) -> None:
    """Refuse what the machine's memory cannot hold.

    Args:
        rounds: the largest number of rounds.
        runs: runs of each result.
        results: results that are held at once.

    Raises:
        ValueError: the arrays of a recorder and these results would take more than there is.
    """
    a_round = 8 * runs * (results * _ARRAYS + len(ACCOUNTINGS))
    memory = _memory()
    if a_round * (rounds + 1) > memory:
        most = memory // a_round - 1
        raise ValueError(
            f"rounds must be at most {most}: the record of {rounds} rounds takes"
            f" {a_round * (rounds + 1) / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB;"
            f" pass rounds={most} or fewer"
        )


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Recorder:
    """Norms, bits and last iterates of all runs, filled as they go.

    Args:
        rounds: the largest number of rounds.
        starts: where each run starts, (runs, d).
    """

    def __init__(self, rounds: int, starts: Tensor) -> None:
        runs = len(starts)
        self.norms = np.full((runs, rounds + 1), np.nan)
        self.up = {kind: np.full((runs, rounds + 1), np.nan) for kind in ACCOUNTINGS}
        for bits in self.up.values():
            bits[:, 0] = 0.0
        estimate = Identity().compress(torch.zeros_like(starts[0]))
        self.down = {kind: float(estimate.bits(kind)) for kind in ACCOUNTINGS}
        self.ends = np.full(runs, "rounds", dtype="<U9")
        self.x = starts.numpy().copy()
        self._sizes: dict[MessageFormat, _Sizes] = {}

    @property
    def rounds(self) -> int:
        """The largest number of rounds."""
        return self.norms.shape[1] - 1

    def add_norms(self, runs: Runs, t: int, norm2: Array, stop: float) -> Flags:
        """Record the norms of round t; returns which of the runs go on."""
        self.norms[runs, t] = norm2
        going = norm2 > stop
        if going.all() and np.isfinite(norm2).all():
            return going
        finite = np.isfinite(norm2)
        self.ends[runs[finite & ~going]] = "tolerance"
        self.ends[runs[~finite]] = "diverged"
        # Diverged runs are recorded as NaN.
        self.norms[runs[~finite], t] = np.nan
        return finite & going

    def add_bits(self, runs: Runs, t: int, messages: Message | list[Message], dense: bool) -> None:
        """Record the bits of the messages that lead from x^t to x^(t+1), mean over nodes."""
        if isinstance(messages, Message):
            sizes = self._batch_sizes(messages)
        else:
            sizes = {kind: _mean([float(m.bits(kind)) for m in messages]) for kind in ACCOUNTINGS}
        for kind, total in self.up.items():
            total[runs, t + 1] = total[runs, t] + (0.0 if dense and kind == "values" else sizes[kind])

    def _batch_sizes(self, message: Message) -> _Sizes:
        # Unless counts vary, a message's size follows from its structure, which is that of the last round.
        if any(group.counts is not None for group in message.groups):
            return _sizes(message)
        key = message.format
        if key not in self._sizes:
            self._sizes[key] = {kind: bits[:1] for kind, bits in _sizes(message).items()}
        return self._sizes[key]

    def state_dict(self) -> dict[str, Any]:
        """Everything recorded."""
        return {"norms": self.norms, "up": self.up, "ends": self.ends, "x": self.x}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another recorder of the same runs."""
        self.norms, self.up, self.ends, self.x = state["norms"], state["up"], state["ends"], state["x"]

    def bits(self, shape: tuple[int, ...]) -> dict[tuple[Accounting, Direction], Array]:
        """Cumulative bits as :class:`Result` holds them, runs in this shape; NaN after a stop."""
        gone = np.isnan(self.norms)
        sent: dict[tuple[Accounting, Direction], Array] = {}
        for kind in ACCOUNTINGS:
            up = np.where(gone, np.nan, self.up[kind])
            down = np.where(gone, np.nan, self.down[kind] * np.arange(self.rounds + 1))
            sent[kind, "up"] = up.reshape(*shape, -1)
            sent[kind, "down"] = down.reshape(*shape, -1)
        return sent


def _sizes(message: Message) -> _Sizes:
    return {kind: message.bits(kind).to(torch.float64).mean(dim=-1).numpy() for kind in ACCOUNTINGS}


def _mean(sizes: list[float]) -> Array:
    return np.array([np.mean(sizes)])
