"""Runs of one method that record iterates, and what EF21's theorems bound."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.feedback import Feedback, Sender
from laconic.lab._problem import Problem, mean_over_nodes
from laconic.lab._simulation import Simulation
from laconic.lab._types import Array


def iterates(problem: Problem, feedback: Feedback, x0: Tensor, stepsize: float, rounds: int) -> Tensor:
    """x^0 to x^rounds, (rounds + 1, d) float64."""
    simulation = _simulation(problem, feedback, x0, stepsize)
    found = [simulation.x[0]]
    for _ in range(rounds):
        simulation.advance(problem.gradients(simulation.x))
        found.append(simulation.x[0])
    return torch.stack(found)


def _simulation(problem: Problem, feedback: Feedback, x0: Tensor, stepsize: float) -> Simulation:
    stepsizes = torch.tensor([stepsize], dtype=torch.float64)
    return Simulation(problem, feedback, x0.to(torch.float64)[None].clone(), stepsizes, torch.tensor([0]))


@dataclass(frozen=True)
class Followed:
    """The quantities of the theorems along a run, one entry a round t = 0..T.

    Args:
        norm2: ``|grad f(x^t)|^2``.
        loss: ``f(x^t)``.
        G: ``(1/n) sum |g_i^t - grad f_i(x^t)|^2``.
    """

    norm2: Array
    loss: Array
    G: Array

    @property
    def mean(self) -> Array:
        """Means of ``|grad f|^2`` over t = 0..T-1, for T = 1, 2, ..."""
        means: Array = np.cumsum(self.norm2) / np.arange(1, len(self.norm2) + 1)
        return means

    @property
    def least(self) -> Array:
        """The smallest of the first T squares, for T = 1, 2, ..."""
        least: Array = np.minimum.accumulate(self.norm2)
        return least


def follow(problem: Problem, feedback: Feedback, stepsize: float, rounds: int, x0: Tensor) -> Followed:
    """Run a method that remembers estimates h_i of the gradients, as EF21, for T rounds.

    Args:
        problem: what to minimise.
        feedback: EF21, EF21+ or a relative, whose nodes remember one estimate each.
        stepsize: the stepsize.
        rounds: T.
        x0: the start, (d,).
    """
    simulation = _simulation(problem, feedback, x0, stepsize)
    norm2, loss, G = (np.empty(rounds + 1) for _ in range(3))
    for t in range(rounds + 1):
        gradients = problem.gradients(simulation.x)
        norm2[t] = float((mean_over_nodes(gradients) ** 2).sum())
        loss[t] = float(problem.loss(simulation.x))
        simulation.advance(gradients)
        G[t] = float(((_memory(simulation.sender) - gradients) ** 2).sum(dim=-1).mean())
    return Followed(norm2, loss, G)


def _memory(sender: Sender) -> Tensor:
    """The nodes' memories, (runs, nodes, d): the one tensor of their state."""
    (memory,) = (value for value in sender.state_dict().values() if isinstance(value, Tensor))
    return memory
