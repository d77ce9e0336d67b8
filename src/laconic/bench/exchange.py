"""Benchmark of the exchange: one rank's work with simulated peers, and ``Exchange.reduce_``."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import laconic

from .cases import (
    METHODS,
    BenchSettings,
    Gradients,
    Progress,
    StepRow,
    format_of,
    no_progress,
    one_thread,
    step_rows,
)
from .processes import measure_processes
from .timing import Times, median

PHASES = ("stage", "pack", "unpack", "receive", "commit")


@dataclass(frozen=True)
class WholeRow:
    """``Exchange.reduce_`` of one segment on a single rank: medians over rounds.

    Args:
        method: the method's name.
        d: length of the vector.
        ms: milliseconds of ``reduce_``.
        parts_ms: milliseconds of its parts: stage, pack, unpack, receive and commit.
        pass_ms: milliseconds of ``x.mul_(1)``.
        to_parts: ``reduce_`` over its parts, in the same round.
        to_pass: ``reduce_`` over ``x.mul_(1)``, in the same round.
        cpu_to_parts: the same of processor time, which other programs change less.
        cpu_to_pass: likewise.
        equal: whether both ways gave the same estimates.
    """

    method: str
    d: int
    ms: float
    parts_ms: float
    pass_ms: float
    to_parts: float
    to_pass: float
    cpu_to_parts: float
    cpu_to_pass: float
    equal: bool


class Rank:
    """Rank 0's ends of an exchange, without a network."""

    def __init__(self, layout: laconic.Layout, feedback: Any, nodes: int) -> None:
        """Start at round 0."""
        self._nodes = nodes
        self._formats = [format_of(feedback, layout, round) for round in (0, 1)]
        self._sender = feedback.sender(layout, node=0, seed=0)
        self._receiver = feedback.receiver(layout, nodes)
        self.estimate = torch.empty(layout.d)
        self.phases: list[dict[str, float]] = []
        self.message_bytes = 0

    def step(self, gradient: Tensor, peers: Sequence[Tensor] = ()) -> None:
        """A whole step, whose result is then in ``estimate``; ``phases`` gets the seconds of each phase, and
        ``message_bytes`` is the length of this rank's message.

        Args:
            gradient: (d,) float32.
            peers: the other ranks' frames; without any, all send what this one does.
        """
        expect = self._formats[min(len(self.phases), 1)]
        marks = [time.perf_counter()]
        message = self._sender.stage(gradient)
        marks.append(time.perf_counter())
        own = laconic.pack(message, expect=expect)
        marks.append(time.perf_counter())
        self.message_bytes = own.numel()
        frames = (own, *peers) if peers else (own,) * self._nodes
        messages = [laconic.unpack(frame, expect=expect) for frame in frames]
        marks.append(time.perf_counter())
        self._receiver.stage(messages, out=self.estimate)
        marks.append(time.perf_counter())
        self._sender.commit()
        self._receiver.commit()
        marks.append(time.perf_counter())
        self.phases.append({phase: marks[i + 1] - marks[i] for i, phase in enumerate(PHASES)})


def count_notes(settings: BenchSettings) -> int:
    """How many notes :func:`measure` sends."""
    turns = 1 if settings.processes else len(settings.nodes) + 1
    peers = 0 if settings.processes else max(settings.nodes) - 1
    return len(settings.cases) * (peers + turns * settings.rounds)


def measure(settings: BenchSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure what the settings name, on one thread.

    Returns:
        The settings, and lists of rows: "simulated" (:class:`StepRow``) and "whole" (:class:``WholeRow`), or
        "processes" (:class:`StepRow`, with the phases of ``Exchange.stats()``).
    """
    record: dict[str, Any] = {"settings": asdict(settings)}
    if settings.processes:
        return record | {"processes": measure_processes(settings, progress)}
    simulated: list[StepRow] = []
    whole: list[WholeRow] = []
    with one_thread():
        for case in settings.cases:
            simulated += measure_simulated(settings, case, progress)
            whole.append(measure_whole(settings, case, progress))
    return record | {"simulated": list(map(asdict, simulated)), "whole": list(map(asdict, whole))}


def measure_simulated(settings: BenchSettings, case: tuple[str, int], progress: Progress) -> list[StepRow]:
    """Rank 0's work in a step, by number of ranks and layout; the layouts take turns in each round."""
    method, d = case
    layouts = settings.layouts(d)
    gradients = Gradients(layouts)
    frames = _frames_of_peers(settings, case, gradients, progress)
    rows: list[StepRow] = []
    for nodes in settings.nodes:
        ranks = {s: Rank(layout, METHODS[method], nodes) for s, layout in layouts.items()}
        totals = {s: Times() for s in layouts}
        for round in range(settings.rounds):
            progress(f"{method}, d = {d:,}, n = {nodes}")
            gradient = gradients.of(0, round)
            for s, rank in ranks.items():
                peers = frames[s][round][: nodes - 1]
                totals[s].add(partial(rank.step, gradient[: layouts[s].d], peers))
        rows += step_rows(case, nodes, {s: rank.phases for s, rank in ranks.items()}, totals)
    return rows


def _frames_of_peers(
    settings: BenchSettings, case: tuple[str, int], gradients: Gradients, progress: Progress
) -> dict[int, list[list[Tensor]]]:
    """By number of segments, what the other ranks send in each round; nothing in the first.

    That one may be dense, and too large to be kept of every rank.
    """
    method, d = case
    feedback, layouts = METHODS[method], settings.layouts(d)
    formats = {s: format_of(feedback, layout, 1) for s, layout in layouts.items()}
    frames: dict[int, list[list[Tensor]]] = {s: [[] for _ in range(settings.rounds)] for s in layouts}
    for node in range(1, max(settings.nodes)):
        progress(f"{method}, d = {d:,}: the other ranks' messages")
        senders = {s: feedback.sender(layout, node=node, seed=0) for s, layout in layouts.items()}
        for round in range(settings.rounds):
            gradient = gradients.of(node, round)
            for s, layout in layouts.items():
                message = senders[s].stage(gradient[: layout.d])
                if round:
                    frames[s][round].append(laconic.pack(message, expect=formats[s]))
                senders[s].commit()
    return frames


def measure_whole(settings: BenchSettings, case: tuple[str, int], progress: Progress) -> WholeRow:
    """``reduce_`` of one segment on a single rank, its parts, and a pass over d, in turns."""
    method, d = case
    layout = settings.layouts(d)[1]
    gradients = Gradients({1: layout})
    exchange = laconic.Exchange(layout, METHODS[method])
    rank = Rank(layout, METHODS[method], 1)
    (name,) = (segment.name for segment in layout.segments)
    x = torch.randn(d)
    whole, parts, passes = Times(), Times(), Times()
    equal = True
    try:
        for round in range(settings.rounds):
            progress(f"{method}, d = {d:,}: reduce_ and its parts")
            gradient = gradients.of(0, round)
            tensors = {name: gradient.clone()}
            whole.add(partial(exchange.reduce_, tensors))
            parts.add(partial(rank.step, gradient))
            passes.add(partial(x.mul_, 1.0))
            equal = equal and torch.equal(tensors[name], rank.estimate)
    finally:
        exchange.close()
    (to_parts, cpu_to_parts), (to_pass, cpu_to_pass) = whole.ratios(parts), whole.ratios(passes)
    ms, parts_ms, pass_ms = (1e3 * median(taken.wall) for taken in (whole, parts, passes))
    return WholeRow(method, d, ms, parts_ms, pass_ms, to_parts, to_pass, cpu_to_parts, cpu_to_pass, equal)


def main() -> None:
    """Measure and write JSON, without the packages of the command line."""
    parser = argparse.ArgumentParser(description="What `laconic bench exchange` measures, as JSON.")
    for field in fields(BenchSettings):
        default: Any = field.default
        many = isinstance(default, tuple)
        kind = type(default[0] if many else default)
        parser.add_argument(f"--{field.name}", nargs="+" if many else None, type=kind, default=default)
    parser.add_argument("--json", type=Path, help="where to write it; by default on standard output")
    chosen = vars(parser.parse_args())
    out = chosen.pop("json")
    text = json.dumps(measure(BenchSettings(**chosen)), indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    main()
