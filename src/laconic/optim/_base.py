"""What both optimisers do beside their arithmetic: exchange updates, move parameters, keep memories."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.comm import Stats
from laconic.feedback import Feedback
from laconic.layout import Layout
from laconic.optim._overlap import Early, begin_early, require_plain
from laconic.optim._replicas import Replicas, parameter_names, settings_of, trained
from laconic.optim._state_dict import load_memories, restore_moments, with_memories
from laconic.session._exempt import Exempt
from laconic.session._gradients import apply_, check_parameters, clip_factors, loss_scale

Update = Callable[[Tensor, dict[str, Any], float], Tensor]
"""From a parameter, its group and its gradient's factor to what is sent, without the learning rate."""

Advance = Callable[[Tensor, dict[str, Any], float], None]
"""Moves an optimiser's state of a parameter on, once the step stands; arguments as for :data:`Update`."""


class Node:
    """This rank's part in the training of one model by one optimiser.

    Args:
        optimizer: whose groups hold the parameters; each has an ``lr``, a ``weight_decay`` and a ``clip``.
        update: what is sent of a parameter.
        feedback: what the updates go through. Where it estimates a "step" the learning rate is inside.
        exempt: which parameters travel whole.
        exact: whether they travel exactly.
        process_group: the ranks; None is all of them.
        seed: of random compressors.
        timeout_s: how long to wait for the others, in seconds.
        overlap: whether to begin to send while the backward pass still runs.
        adaptive: as for the exchange.

    Raises:
        TypeError: for complex, integer or sparse parameters.
        ValueError: where the ranks differ, or settings do not go together.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        update: Update,
        feedback: Feedback,
        *,
        exempt: Exempt,
        exact: bool,
        process_group: dist.ProcessGroup | None,
        seed: int,
        timeout_s: float,
        overlap: bool,
        adaptive: bool,
    ) -> None:
        """Meet the other ranks, and take over rank 0's parameters."""
        groups = optimizer.param_groups
        check_parameters(groups)
        self._optimizer = optimizer
        self._update = update
        self._inside = feedback.estimates == "step"
        self._names = parameter_names(groups)
        by_name = {name: parameter for parameter, name in self._names.items()}
        self._replicas = Replicas(
            by_name, feedback, exempt, exact, process_group, seed, timeout_s, settings_of(groups), adaptive
        )
        self.early: Early | None = None
        if overlap:
            self.early = begin_early(optimizer, self._names, self._replicas, self._sent)

    @property
    def parameters(self) -> list[Tensor]:
        """Those that are trained."""
        return list(self._names)

    @property
    def layout(self) -> Layout:
        """A segment for each of them."""
        return self._replicas.layout

    def step(self, closure: Callable[[], float] | None, advance: Advance) -> float | None:
        """One step on every rank; void everywhere where a gradient was not finite anywhere.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self._optimizer.param_groups
        factors = clip_factors(groups, loss_scale(self._optimizer))
        estimates = self._exchanged(factors)
        if estimates is None:
            return loss
        for group, factor in zip(groups, factors, strict=True):
            lr = float(group["lr"])
            for parameter, name in trained(group, self._names):
                advance(parameter, group, factor)
                step = estimates.pop(name)
                apply_(parameter, step if self._inside else step * lr, 1.0 - lr * group["weight_decay"])
        return loss

    def _exchanged(self, factors: list[float]) -> dict[str, Tensor] | None:
        """The estimates by name; None where the step is void."""
        if self.early is not None:
            require_plain(self._optimizer)
            return self.early.finish()
        updates = {}
        for group, factor in zip(self._optimizer.param_groups, factors, strict=True):
            for parameter, name in trained(group, self._names):
                updates[name] = self._sent(parameter, group, factor)
        return updates if self._replicas.mean_(updates) else None

    def _sent(self, parameter: Tensor, group: dict[str, Any], factor: float) -> Tensor:
        update = self._update(parameter, group, factor)
        return update * float(group["lr"]) if self._inside else update

    def accumulate(self) -> AbstractContextManager[None]:
        """Where all backward passes of a step but the last belong with overlap; else no matter."""
        return nullcontext() if self.early is None else self.early.paused()

    def stats(self) -> Stats:
        """What the exchange has sent, received and spent."""
        return self._replicas.stats()

    def with_memories(self, state: dict[str, Any]) -> dict[str, Any]:
        """The optimiser's own state dict, and this rank's memories."""
        return with_memories(state, self._replicas)

    def load(self, state: dict[str, Any], load_own: Callable[[dict[str, Any]], None]) -> None:
        """Take over memories, what ``load_own`` takes, and moments in the dtype that they were saved in."""
        load_memories(state, self._replicas)
        load_own(state)
        restore_moments(self._optimizer, state)

    def close(self) -> None:
        """End the exchange's thread and process group."""
        if self.early is not None:
            self.early.close()
        self._replicas.close()


def opened(node: Node | None) -> Node:
    """The node of an optimiser that is made."""
    if node is None:
        raise RuntimeError("the optimiser is not made yet, or came from a pickle: make a new one")
    return node


def refuse_groups(node: Node | None) -> None:
    """Refuse a group that comes after the ranks have agreed on the parameters.

    Raises:
        RuntimeError: saying what to do.
    """
    if node is not None:
        raise RuntimeError(
            "the ranks have agreed on the parameters: give all groups when the optimiser is made, those for "
            "later with lr=0, or make a new optimiser"
        )
