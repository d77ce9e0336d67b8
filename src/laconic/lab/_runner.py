"""Runners of a run specification: all runs in one batch, or one after another and node by node."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.feedback import Feedback
from laconic.lab._checkpoint import Checkpoint
from laconic.lab._problem import Problem, squared_norms, squared_norms_of_means
from laconic.lab._recorder import Recorder, Runs
from laconic.lab._simulation import SequentialSimulation, Simulation, UpdateRule
from laconic.lab._types import Array

OnRound = Callable[[int, Tensor], None]
"""Called with a round number t and ``|grad f(x^t)|^2`` of the runs still going."""

State = dict[str, Any]
Runner = Callable[["RunSpec", Recorder, State | None], None]


@dataclass(frozen=True)
class RunSpec:
    """Every stepsize with every seed.

    Args:
        problem: what to minimise.
        feedback: the method.
        stepsizes: the stepsizes.
        seeds: seeds of the compressors' draws.
        stop: tolerance on ``|grad f|^2``.
        step: the update of the iterate.
        on_round: called after each round, or None.
        checkpoint: where the state is saved, or None.
    """

    problem: Problem
    feedback: Feedback
    stepsizes: tuple[float, ...]
    seeds: tuple[int, ...]
    stop: float
    step: UpdateRule
    on_round: OnRound | None
    checkpoint: Checkpoint | None

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """Seed and stepsize of every run."""
        return [(seed, stepsize) for seed in self.seeds for stepsize in self.stepsizes]

    def batch(self, x: Tensor, runs: Runs) -> Simulation:
        """The simulation of the given runs, at x (runs, d)."""
        pairs = [self.pairs[run] for run in runs]
        seeds = torch.tensor([seed for seed, _ in pairs])
        stepsizes = torch.tensor([stepsize for _, stepsize in pairs], dtype=torch.float64)
        return Simulation(self.problem, self.feedback, x, stepsizes, seeds, self.step)

    def single(self, x: Tensor, run: int) -> SequentialSimulation:
        """The simulation of one run, at x (d,)."""
        seed, stepsize = self.pairs[run]
        return SequentialSimulation(self.problem, self.feedback, x, stepsize, seed, self.step)

    def report_progress(self, t: int, norm2: Array) -> None:
        """Call ``on_round``, if there is one."""
        if self.on_round is not None:
            self.on_round(t, torch.from_numpy(norm2))

    @property
    def checkpoint_due(self) -> bool:
        """Whether it is time to save the state."""
        return self.checkpoint is not None and self.checkpoint.due

    def save(self, recorder: Recorder, **position: Any) -> None:
        """Save the state and the position to resume from; without a position, all runs are complete."""
        if self.checkpoint is not None:
            self.checkpoint.save({"record": recorder.state_dict(), **position})


def run_batched(spec: RunSpec, recorder: Recorder, state: State | None) -> None:
    """All runs at once, from the beginning or from a checkpoint's state."""
    start, runs = 0, np.arange(len(spec.pairs))
    if state is not None:
        start, runs = state["round"], state["runs"]
    simulation = spec.batch(torch.from_numpy(recorder.x[runs]), runs)
    if state is not None:
        simulation.load_state_dict(state["simulation"])
    for t in range(start, recorder.rounds + 1):
        if spec.checkpoint_due:
            spec.save(recorder, round=t, runs=runs, simulation=simulation.state_dict())
        gradients = spec.problem.gradients(simulation.x)
        norm2 = squared_norms_of_means(gradients)
        recorder.x[runs] = simulation.x.numpy()
        going = recorder.add_norms(runs, t, norm2, spec.stop)
        if not going.all():
            runs = runs[going]
            if runs.size == 0:
                break
            mask = torch.from_numpy(going)
            simulation.keep(mask)
            gradients, norm2 = gradients[mask], norm2[going]
        spec.report_progress(t, norm2)
        if t < recorder.rounds:
            message = simulation.advance(gradients)
            recorder.add_bits(runs, t, message, spec.feedback.plan(t).dense)
        del gradients  # before the next ones are formed


def run_sequentially(spec: RunSpec, recorder: Recorder, state: State | None) -> None:
    """Run after run on one thread, from the beginning or from a checkpoint's state."""
    with torch_on_one_thread():
        for run in range(0 if state is None else state["run"], len(spec.pairs)):
            simulation, start = spec.single(torch.from_numpy(recorder.x[run].copy()), run), 0
            if state is not None:
                simulation.load_state_dict(state["walker"])
                start, state = state["round"], None
            _run_single(spec, recorder, run, simulation, start)


def _run_single(
    spec: RunSpec, recorder: Recorder, run: int, simulation: SequentialSimulation, start: int
) -> None:
    runs = np.array([run])
    for t in range(start, recorder.rounds + 1):
        if spec.checkpoint_due:
            spec.save(recorder, round=t, run=run, walker=simulation.state_dict())
        gradients = simulation.gradients()
        mean = torch.zeros_like(simulation.x)
        for gradient in gradients:
            mean = mean + gradient
        norm2 = squared_norms(mean / spec.problem.nodes).reshape(1)
        recorder.x[run] = simulation.x.numpy()
        if not recorder.add_norms(runs, t, norm2, spec.stop).all():
            break
        spec.report_progress(t, norm2)
        if t < recorder.rounds:
            messages = simulation.advance(gradients)
            recorder.add_bits(runs, t, messages, spec.feedback.plan(t).dense)


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Run PyTorch on one thread inside: faster for small tensors, and bits do not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
