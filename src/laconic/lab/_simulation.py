"""Simulations of a method over the nodes of a problem, advanced round by round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.feedback import Feedback, Receiver, Sender
from laconic.lab._problem import Problem
from laconic.messages import Accounting, Message

UpdateRule = Callable[[Tensor, Tensor], Tensor]
"""From the iterates (runs, d) and ``stepsize * estimate`` (runs, d) to the next iterates."""

ACCOUNTINGS: tuple[Accounting, ...] = ("wire", "values", "entropy")


def plain_step(x: Tensor, direction: Tensor) -> Tensor:
    """``x - direction``."""
    return x - direction


@dataclass
class Simulation:
    """Iterates, senders and receiver of a batch of runs, which differ in stepsize and seed.

    All runs and nodes go through one batched sender, in float64. The draws are keyed by seed, node and
    round, so a run does not depend on which others stand in the batch.

    Args:
        x: the iterates, (runs, d) float64.
        stepsizes: (runs,) float64.
        seeds: (runs,) int64.
    """

    problem: Problem
    feedback: Feedback
    x: Tensor
    stepsizes: Tensor
    seeds: Tensor
    step: UpdateRule = plain_step

    def __post_init__(self) -> None:
        """Make a sender for all nodes of all runs, and a receiver."""
        self.sender: Sender = self._new_sender()
        self.receiver: Receiver = self.feedback.receiver(self.problem.d, self.problem.nodes)

    def _new_sender(self) -> Sender:
        nodes = torch.arange(self.problem.nodes)
        return self.feedback.sender(self.problem.d, node=nodes, seed=self.seeds.unsqueeze(-1))

    def advance(self, gradients: Tensor) -> Message:
        """Send the nodes' gradients (runs, nodes, d) at ``x``, and move x; returns what was sent."""
        stepsize = self.stepsizes[:, None]
        if self.feedback.estimates == "step":
            message = self.sender.send(gradients, stepsize=stepsize[:, None])
            direction = self.receiver.receive(message)
        else:
            message = self.sender.send(gradients)
            direction = self.receiver.receive(message) * stepsize
        self.x = self.step(self.x, direction)
        return message

    def keep(self, runs: Tensor) -> None:
        """Go on with some of the runs only.

        Args:
            runs: bool (runs,).
        """
        self.x, self.stepsizes, self.seeds = self.x[runs], self.stepsizes[runs], self.seeds[runs]
        sender, receiver = self._new_sender(), self.feedback.receiver(self.problem.d, self.problem.nodes)
        for new, old in ((sender, self.sender), (receiver, self.receiver)):
            state = old.state_dict()
            new.load_state_dict({k: v[runs] if isinstance(v, Tensor) else v for k, v in state.items()})
        self.sender, self.receiver = sender, receiver

    def state_dict(self) -> dict[str, Any]:
        """Iterates, and what sender and receiver remember; stepsizes and seeds are settings."""
        return {"x": self.x, "sender": self.sender.state_dict(), "receiver": self.receiver.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a simulation of the same runs."""
        self.x = state["x"]
        self.sender.load_state_dict(state["sender"])
        self.receiver.load_state_dict(state["receiver"])


@dataclass
class SequentialSimulation:
    """One run, node by node: one sender for each node, gradients formed one at a time.

    Slow and plain: the reference of :class:`Simulation`.

    Args:
        x: the iterate, (d,) float64.
        stepsize: the stepsize.
        seed: the seed of all draws.
    """

    problem: Problem
    feedback: Feedback
    x: Tensor
    stepsize: float
    seed: int
    step: UpdateRule = plain_step

    def __post_init__(self) -> None:
        """Make a sender for each node, and a receiver."""
        d, nodes = self.problem.d, self.problem.nodes
        self.senders = [self.feedback.sender(d, node=i, seed=self.seed) for i in range(nodes)]
        self.receiver = self.feedback.receiver(d, nodes)

    def gradients(self) -> list[Tensor]:
        """Each node's gradient at x, (d,) float64."""
        return [self.problem.node_gradient(i, self.x) for i in range(self.problem.nodes)]

    def advance(self, gradients: list[Tensor]) -> list[Message]:
        """Send the nodes' gradients at ``x``, and move x; returns what was sent."""
        inside = self.feedback.estimates == "step"
        stepsize = self.stepsize if inside else None
        pairs = zip(self.senders, gradients, strict=True)
        messages = [sender.send(g, stepsize=stepsize) for sender, g in pairs]
        estimate = self.receiver.receive(messages)
        self.x = self.step(self.x, estimate if inside else estimate * self.stepsize)
        return messages

    def state_dict(self) -> dict[str, Any]:
        """The iterate, and what senders and receiver remember."""
        senders = [sender.state_dict() for sender in self.senders]
        return {"x": self.x, "senders": senders, "receiver": self.receiver.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a simulation of the same run."""
        self.x = state["x"]
        for sender, saved in zip(self.senders, state["senders"], strict=True):
            sender.load_state_dict(saved)
        self.receiver.load_state_dict(state["receiver"])


NodeByNode = SequentialSimulation
"""The name of ``SequentialSimulation`` in the first version."""
