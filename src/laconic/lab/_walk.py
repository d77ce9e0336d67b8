"""The two ways through a run: all runs in one batch, or run after run and node by node."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.feedback import Feedback
from laconic.lab._checkpoint import Checkpoint
from laconic.lab._problem import Problem
from laconic.lab._record import Record, Runs
from laconic.lab._simulation import NodeByNode, Simulation, Step

OnRound = Callable[[int, Tensor], None]
"""Called with a round number t and ``|grad f(x^t)|^2`` of the runs still going."""

State = dict[str, Any]


Walk = Callable[["Job", Record, State | None], None]


@dataclass(frozen=True)
class Job:
    """What is to be run: every stepsize with every seed.

    Args:
        problem: what to minimise.
        feedback: the method.
        stepsizes: the stepsizes.
        seeds: seeds of the compressors' draws.
        stop: tolerance on ``|grad f|^2``.
        step: how the iterate moves.
        on_round: told of every round.
        checkpoint: where the state is kept, or None.
    """

    problem: Problem
    feedback: Feedback
    stepsizes: tuple[float, ...]
    seeds: tuple[int, ...]
    stop: float
    step: Step
    on_round: OnRound | None
    checkpoint: Checkpoint | None

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """Seed and stepsize of every run."""
        return [(seed, stepsize) for seed in self.seeds for stepsize in self.stepsizes]

    def simulation(self, x: Tensor, runs: Runs) -> Simulation:
        """The batch of the given runs, which stand at x (runs, d)."""
        pairs = [self.pairs[run] for run in runs]
        seeds = torch.tensor([seed for seed, _ in pairs])
        stepsizes = torch.tensor([stepsize for _, stepsize in pairs], dtype=torch.float64)
        return Simulation(self.problem, self.feedback, x, stepsizes, seeds, self.step)

    def walker(self, x: Tensor, run: int) -> NodeByNode:
        """One run, which stands at x (d,)."""
        seed, stepsize = self.pairs[run]
        return NodeByNode(self.problem, self.feedback, x, stepsize, seed, self.step)

    def report(self, t: int, norm2: Tensor) -> None:
        """Say how far the runs are, where somebody listens."""
        if self.on_round is not None:
            self.on_round(t, norm2)

    @property
    def due(self) -> bool:
        """Whether it is time to keep the state."""
        return self.checkpoint is not None and self.checkpoint.due

    def keep(self, record: Record, **where: Any) -> None:
        """Keep the state; without a place where to go on, the job is done."""
        if self.checkpoint is not None:
            self.checkpoint.save({"record": record.state_dict(), **where})


def walk_batch(job: Job, record: Record, state: State | None) -> None:
    """All runs at once, from the beginning or from where a checkpoint left them."""
    start, runs = 0, np.arange(len(job.pairs))
    if state is not None:
        start, runs = state["round"], state["runs"]
    simulation = job.simulation(torch.from_numpy(record.x[runs]), runs)
    if state is not None:
        simulation.load_state_dict(state["simulation"])
    for t in range(start, record.rounds + 1):
        if job.due:
            job.keep(record, round=t, runs=runs, simulation=simulation.state_dict())
        gradients = job.problem.gradients(simulation.x)
        norm2 = (gradients.mean(dim=-2) ** 2).sum(dim=-1)
        record.x[runs] = simulation.x.numpy()
        going = record.norm(runs, t, norm2.numpy(), job.stop)
        if not going.all():
            runs = runs[going]
            if runs.size == 0:
                break
            mask = torch.from_numpy(going)
            simulation.keep(mask)
            gradients, norm2 = gradients[mask], norm2[mask]
        job.report(t, norm2)
        if t < record.rounds:
            message = simulation.advance(gradients)
            record.sent(runs, t, message, job.feedback.plan(t).dense)
        del gradients  # before the next ones are formed


def walk_nodes(job: Job, record: Record, state: State | None) -> None:
    """Run after run on one thread, from the beginning or from where a checkpoint left them."""
    with one_thread():
        for run in range(0 if state is None else state["run"], len(job.pairs)):
            walker, start = job.walker(torch.from_numpy(record.x[run].copy()), run), 0
            if state is not None:
                walker.load_state_dict(state["walker"])
                start, state = state["round"], None
            _walk_one(job, record, run, walker, start)


def _walk_one(job: Job, record: Record, run: int, walker: NodeByNode, start: int) -> None:
    runs = np.array([run])
    for t in range(start, record.rounds + 1):
        if job.due:
            job.keep(record, round=t, run=run, walker=walker.state_dict())
        gradients = walker.gradients()
        mean = torch.zeros_like(walker.x)
        for gradient in gradients:
            mean = mean + gradient
        norm2 = ((mean / job.problem.nodes) ** 2).sum(dim=-1, keepdim=True)
        record.x[run] = walker.x.numpy()
        if not record.norm(runs, t, norm2.numpy(), job.stop).all():
            break
        job.report(t, norm2)
        if t < record.rounds:
            messages = walker.advance(gradients)
            record.sent(runs, t, messages, job.feedback.plan(t).dense)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread inside: small tensors are faster so, and bits do not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
