"""Training on n simulated nodes in one process, by the arithmetic of real ranks."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from laconic._arguments import check_count, check_positive
from laconic.comm.topologies import bytes_above_dense
from laconic.feedback import Feedback
from laconic.formats import accumulation_dtype
from laconic.lab._nodes import SimulatedNodes
from laconic.layout import Layout
from laconic.optim import CompressedOptimizer, LocalSteps
from laconic.session import (
    Exempt,
    TrainedParameters,
    clip_factor,
    global_norm,
    make_schedule,
    squared_norms_of,
    vectors_and_small,
)

Batch = TypeVar("Batch")
Gradients = dict[Tensor, Tensor | None]
State = dict[str, Any]
_log = logging.getLogger("laconic")


class TrainingSimulation:
    """n nodes that train one model in one process; the parameters exist once, what nodes remember n times.

    Given the same gradients, parameters and memories are those of n real processes, bit for bit: of ranks
    that each have a compressed optimiser; or, with an ordinary optimiser, of DDP ranks with
    :class:`laconic.ddp.CommState`, whose estimate the optimiser steps with. Buffers, as of batch
    normalisation, are shared by the nodes. Messages are gathered by all; where n real ranks with
    ``topology="auto"`` would take the exact mean in their place, the log says so.

    Args:
        model: the module that is trained.
        optimizer: a compressed optimiser, made in this process alone, whose feedback, seed and settings are
            used; or any other PyTorch optimiser.
        nodes: n.
        feedback: with an ordinary optimiser, the method that gradients go through; None averages them.
        exempt, exact, clip, seed: as for :class:`laconic.ddp.CommState`, None for its defaults; a compressed
            optimiser has its own.

    Raises:
        ValueError: for settings that do not go together.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        nodes: int,
        *,
        feedback: Feedback | None = None,
        exempt: Exempt | None = None,
        exact: bool | None = None,
        clip: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Make the nodes' senders and their receiver."""
        check_count("nodes", nodes, 1)
        if isinstance(optimizer, LocalSteps):
            raise ValueError(
                "LocalSteps has parameters of its own on each node between outer steps, and the simulation "
                "has them once: train it on real ranks, with torchrun"
            )
        self.optimizer = optimizer
        self.skipped = 0
        self._committed = 0
        self._clip = clip
        if isinstance(optimizer, CompressedOptimizer):
            given = {"feedback": feedback, "exempt": exempt, "exact": exact, "clip": clip, "seed": seed}
            if named := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"the compressed optimiser has its own {', '.join(named)}: set them there")
            session = optimizer.session
            topology = getattr(session.topology, "name", session.topology)
            if topology not in ("auto", "all-gather"):
                raise ValueError(f"only the all-gather topology is simulated, got {topology!r}")
            self._parameters, layout = session.parameters, session.layout
            feedback, seed = session.exchange.feedback, session.seed
            _warn_of_mean(layout, session.schedule.methods[-1], nodes, self._parameters, topology)
            optimizer.set_nodes(nodes)
        else:
            if clip is not None:
                check_positive("clip", clip)
            self._parameters = TrainedParameters(model.named_parameters())
            layout = self._parameters.layout(exempt or vectors_and_small, bool(exact))
            if feedback is not None:
                _warn_of_mean(layout, feedback, nodes, self._parameters, "auto")
            if feedback is not None and torch.float64 not in self._parameters.dtypes.values():
                feedback = make_schedule(feedback, 0, None).starting_in_bfloat16().methods[0]
        self._nodes = SimulatedNodes(self._parameters, layout, feedback, nodes, seed or 0)
        self._states = [_copied(optimizer.state) for _ in range(nodes)]

    @property
    def bits(self) -> float:
        """Bits that a node has sent in committed steps, mean over nodes."""
        return self._nodes.bits

    def step(self, backward: Callable[[int], float]) -> float:
        """One step of all nodes; void, as on real ranks, where a gradient of any node is not finite.

        Args:
            backward: computes the loss of a node at the model's parameters, and its gradients, which are
                none before; returns the loss.

        Returns:
            The mean loss of the nodes before the step.
        """
        gradients, losses = [], []
        for node in range(self._nodes.nodes):
            self._set(None)
            losses.append(backward(node))
            gradients.append({p: p.grad for p in self._parameters.name_of})
        with torch.no_grad():
            step = self._compressed if isinstance(self.optimizer, CompressedOptimizer) else self._plain
            stands = step(gradients)
        self.skipped += not stands
        self._committed += stands
        self._set(None)
        return sum(losses) / len(losses)

    def _compressed(self, gradients: list[Gradients]) -> bool:
        optimizer = self.optimizer
        assert isinstance(optimizer, CompressedOptimizer)
        norms, factors, updates = [], [], []
        for node, own in enumerate(gradients):
            self._be(node, own)
            norms.append(optimizer.clipping.norms())
            factors.append(optimizer.clipping.factors(norms[node]))
            updates.append(optimizer.updates(factors[node]))
        method = optimizer.session.schedule.at(self._committed)
        if method is not None:
            self._nodes.switch(method)
        estimates = self._nodes.mean(updates, dense=method is None)
        if estimates is not None:
            for node, own in enumerate(gradients):
                self._be(node, own)
                optimizer.advance_all(factors[node])
                optimizer.clipping.keep(norms[node])
                self._states[node] = dict(optimizer.state)
            buckets = optimizer.parameter_buckets
            optimizer.apply_all([[estimates[p] for p in bucket.parameters] for bucket in buckets])
            # What a scheduler's wrapper of step() sets, without which it warns that no step came before it.
            optimizer._opt_called = True  # type: ignore[attr-defined]
        self._be(0, None)
        return estimates is not None

    def _be(self, node: int, gradients: Gradients | None) -> None:
        """Let the optimiser have a node's state and gradients."""
        self.optimizer.state = defaultdict(dict, self._states[node])
        self._set(gradients)

    def _plain(self, gradients: list[Gradients]) -> bool:
        estimates = self._nodes.mean([self._sent(own) for own in gradients])
        if estimates is None:
            return False
        for parameter, wide in estimates.items():
            estimate = wide.to(parameter.dtype)
            used = any(own[parameter] is not None for own in gradients)
            # As DDP, which leaves a parameter that no node used without a gradient; but the hook writes what
            # the memory of one that is trained still holds.
            holds = parameter.requires_grad and bool(estimate.any())
            parameter.grad = estimate if used or holds else None
        self.optimizer.step()
        return True

    def _sent(self, gradients: Gradients) -> dict[Tensor, Tensor]:
        """A node's gradients in the accumulation dtype, zeros where there are none, clipped."""
        given = {
            p: (torch.zeros_like(p) if g is None else g).to(accumulation_dtype(p.dtype))
            for p, g in gradients.items()
        }
        if self._clip is None:
            return given
        squares = [squared_norms_of(gradient.reshape(-1), (p.numel(),))[0] for p, gradient in given.items()]
        factor = clip_factor(global_norm(squares), self._clip)
        return {p: g * factor for p, g in given.items()} if factor != 1.0 else given

    def _set(self, gradients: Gradients | None) -> None:
        for parameter in self._parameters.name_of:
            parameter.grad = None if gradients is None else gradients[parameter]

    def state_dict(self) -> State:
        """What the nodes remember beside the model, for :meth:`load_state_dict`."""
        own = self.optimizer
        compressed = isinstance(own, CompressedOptimizer)
        base = Optimizer.state_dict(own)
        by_name = self._parameters.name_of
        states = [{by_name[p]: dict(s) for p, s in state.items()} for state in self._states]
        return {
            "optimizer": base,
            "states": states if compressed else [],
            "nodes": self._nodes.state_dict(),
            "skipped": self.skipped,
            "committed": self._committed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a simulation of the same settings was; restore the model's parameters beside it.

        Raises:
            ValueError: for another number of nodes, method or model.
        """
        self._nodes.load_state_dict(state["nodes"])
        Optimizer.load_state_dict(self.optimizer, dict(state["optimizer"]))
        if state["states"]:
            of = self._parameters.by_name
            self._states = [_copied({of[n]: s for n, s in own.items()}) for own in state["states"]]
            self._be(0, None)
        self.skipped = state["skipped"]
        self._committed = state["committed"]


def _warn_of_mean(
    layout: Layout, feedback: Feedback, nodes: int, parameters: TrainedParameters, topology: str
) -> None:
    """Say in the log where real ranks would not compress."""
    sizes = bytes_above_dense(layout, feedback, nodes, parameters.dtypes)
    if topology == "auto" and sizes is not None:
        _log.warning(
            "%d real ranks would take the exact mean, %.3g MB a step, in place of messages of %.3g MB; the "
            "simulation compresses, as they do with topology='all-gather'",
            nodes,
            sizes[1] / 1e6,
            sizes[0] / 1e6,
        )


def _copied(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy; what several parameters share, such as a count of steps, they share in it too."""
    clones: dict[int, Any] = {}

    def clone(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in clones:
            clones[id(value)] = value.clone()
        return clones[id(value)]

    return {parameter: {k: clone(v) for k, v in own.items()} for parameter, own in state.items()}


@dataclass(frozen=True)
class TrainingResult:
    """The course of a training.

    Args:
        losses: (steps,) float64, mean over nodes, before each step.
        bits: (steps,) float64, bits that a node had sent after each step, mean over nodes.
        skipped: steps that were void.
        simulation: to go on with, or to save.
    """

    losses: npt.NDArray[np.float64]
    bits: npt.NDArray[np.float64]
    skipped: int
    simulation: TrainingSimulation


def train(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    nodes: int,
    data: Callable[[int, int], Batch],
    loss: Callable[[nn.Module, Batch], Tensor | float],
    steps: int,
    on_step: Callable[[int, float], None] | None = None,
    **settings: Any,
) -> TrainingResult:
    """Train a model on n simulated nodes; see :class:`TrainingSimulation` for what is equal to real ranks.

    Args:
        model: the module that is trained.
        optimizer: a compressed optimiser, or any other.
        nodes: n.
        data: from (step, node) to what the node sees in that step.
        loss: from the model and that to a scalar, which is differentiated; or to a number, where the
            function has set the gradients itself.
        steps: how many.
        on_step: called with (step, mean loss) after each, for schedulers, evaluation and progress.
        settings: feedback, exempt, exact, clip, seed of :class:`TrainingSimulation`.

    Example:
        >>> import torch, laconic
        >>> model = torch.nn.Linear(30, 20)
        >>> inputs = torch.eye(30).repeat(2, 2, 1)
        >>> optimizer = laconic.optim.CompressedSGD(model.parameters(), lr=0.5)
        >>> result = train(model, optimizer, nodes=2, steps=20,
        ...                data=lambda step, node: inputs[node],
        ...                loss=lambda model, x: model(x).square().mean())
        >>> bool(result.losses[-1] < result.losses[0]), result.skipped
        (True, 0)
        >>> optimizer.close()
    """
    check_count("steps", steps)
    simulation = TrainingSimulation(model, optimizer, nodes, **settings)
    losses, bits = np.empty(steps), np.empty(steps)

    for step in range(steps):

        def backward(node: int, step: int = step) -> float:
            found = loss(model, data(step, node))
            if isinstance(found, Tensor):
                found.backward()  # type: ignore[no-untyped-call]
                found = found.detach()
            return float(found)

        losses[step] = simulation.step(backward)
        bits[step] = simulation.bits
        if on_step is not None:
            on_step(step, float(losses[step]))
    return TrainingResult(losses, bits, simulation.skipped, simulation)
