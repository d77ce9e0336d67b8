"""Gradient clipping of the optimisers: a node's norms and factors by parameter group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.optim._gradients import dense
from laconic.session import TrainedParameters, clip_factor, global_norm, squared_norms_of

ClipBy = Literal["this", "last"]
"""Whose norm clips a step: its own, or that of the last committed step."""
LAST_NORM = "last_norm"
"""Key of a parameter's state: the norm of its group in the last committed step; 0 for none."""


class GradientClipping:
    """What a node's gradients are multiplied by: unscaling, and clipping.

    Groups with the same ``clip`` share one norm over all their parameters, so by default it is the whole
    gradient's. Norms are in unscaled units, so that a loss scale may change between two steps.

    A last norm is a tensor in the state of a group's parameters, which all of them share: state is each
    rank's own in checkpoints.

    Args:
        optimizer: whose groups and state are looked up anew each time, because loading replaces them.
        parameters: those that are trained.
        by: whose norm clips a step.

    Raises:
        ValueError: for another ``by``.
    """

    def __init__(self, optimizer: Optimizer, parameters: TrainedParameters, by: ClipBy) -> None:
        """Start without last norms."""
        if by not in (choices := get_args(ClipBy)):
            raise ValueError(f"clip_by must be one of {choices}, got {by!r}")
        self._optimizer, self._parameters, self._by_last = optimizer, parameters, by == "last"
        self._members = [
            [parameter for parameter in group["params"] if parameter in parameters.name_of]
            for group in optimizer.param_groups
        ]
        self.share_last()

    def norms(self, scale: float = 1.0) -> list[float]:
        """The norm of this step's gradients, less their loss scale, by group; 0 where it is not clipped."""
        groups = self._optimizer.param_groups
        if all(group["clip"] is None for group in groups):
            return [0.0] * len(groups)
        squares = _squares(self._parameters)
        members: dict[float, set[Tensor]] = {}
        for group in groups:
            if group["clip"] is not None:
                members.setdefault(group["clip"], set()).update(group["params"])
        norms = {
            clip: global_norm([square for p, square in squares.items() if p in own], scale)
            for clip, own in members.items()
        }
        return [norms.get(group["clip"], 0.0) for group in groups]

    def factors(self, norms: Sequence[float], scale: float = 1.0) -> list[float]:
        """The factor of each group in a step whose gradients have these norms and this loss scale."""
        used = [last or norm for last, norm in zip(self._last(), norms, strict=True)]
        return [factor / scale for factor in _clip_factors(self._optimizer.param_groups, used)]

    def factors_before(self) -> list[float] | None:
        """The factors of a step whose gradients are not there yet; None where its own norm is needed."""
        groups, last = self._optimizer.param_groups, self._last()
        clipped = zip(groups, self._members, last, strict=True)
        if any(group["clip"] is not None and own and not norm for group, own, norm in clipped):
            return None
        return _clip_factors(groups, last)

    def keep(self, norms: Sequence[float]) -> None:
        """The step with these norms stands."""
        if self._by_last:
            for own, norm in zip(self._members, norms, strict=True):
                if own:
                    self._optimizer.state[own[0]][LAST_NORM].fill_(norm if math.isfinite(norm) else 0.0)

    def share_last(self) -> None:
        """Let the parameters of a group share one last norm, zero where none was loaded."""
        state = self._optimizer.state
        for own in self._members:
            found = [state[parameter].pop(LAST_NORM, None) for parameter in own]
            if own and self._by_last:
                norm = torch.tensor(0.0, dtype=torch.float64, device="cpu") if found[0] is None else found[0]
                for parameter in own:
                    state[parameter][LAST_NORM] = norm

    def _last(self) -> list[float]:
        if not self._by_last:
            return [0.0] * len(self._members)
        return [float(self._optimizer.state[own[0]][LAST_NORM]) if own else 0.0 for own in self._members]


def _clip_factors(groups: Sequence[Mapping[str, Any]], norms: Sequence[float]) -> list[float]:
    return [
        1.0 if group["clip"] is None else clip_factor(norm, group["clip"])
        for group, norm in zip(groups, norms, strict=True)
    ]


def _squares(parameters: TrainedParameters) -> dict[Tensor, float]:
    """The squared norm of each gradient that is there, by parameter, in the layout's order."""
    by_kind: dict[tuple[torch.dtype, torch.device], dict[Tensor, Tensor]] = {}
    for parameter in parameters.by_name.values():
        gradient = parameter.grad
        if gradient is not None:
            if gradient.layout != torch.strided:
                dense(gradient)
            by_kind.setdefault((gradient.dtype, gradient.device), {})[parameter] = gradient
    found: dict[Tensor, float] = {}
    for members in by_kind.values():
        numels = tuple([p.numel() for p in members])
        found |= zip(members, squared_norms_of(list(members.values()), numels), strict=True)
    return {p: found[p] for p in parameters.by_name.values() if p in found}


def loss_scale(optimizer: Any) -> float:
    """The scale that a ``GradScaler`` has left on the gradients; 1 where there is none or it was removed."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
