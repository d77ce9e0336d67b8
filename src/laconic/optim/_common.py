"""The parameters that nodes with local steps have in common, and the outer SGD that moves them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_PARAMETER, _MOMENTUM = "common_parameter", "outer_momentum"
"""Keys of a parameter's state in checkpoints, beside those of the inner optimiser."""


class CommonParameters:
    """Copies of the parameters as they were after the last outer step, and the outer momentum.

    Args:
        parameters: by name, alike on all nodes.
        momentum: whether there is one.
    """

    def __init__(self, parameters: Mapping[str, Tensor], momentum: bool) -> None:
        """Copy the parameters; a momentum begins at zero."""
        self.parameters = {name: p.detach().clone() for name, p in parameters.items()}
        self._momenta = {n: torch.zeros_like(p) for n, p in self.parameters.items() if momentum}

    def differences(self, names: Sequence[str], own: Sequence[Tensor]) -> list[Tensor]:
        """What a node's local steps took away from each of these parameters, new tensors."""
        return [self.parameters[name] - p for name, p in zip(names, own, strict=True)]

    def step(self, name: str, mean: Tensor, lr: float, momentum: float, nesterov: bool) -> None:
        """A step of SGD by the mean of the nodes' differences."""
        direction = mean
        if momentum != 0.0:
            own = self._momenta[name].mul_(momentum).add_(mean)
            direction = mean + own * momentum if nesterov else own
        self.parameters[name].sub_(direction * lr)

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in (*self.parameters.values(), *self._momenta.values()))

    def state_of(self, name: str) -> dict[str, Tensor]:
        """Copies for a checkpoint."""
        kept = {_PARAMETER: self.parameters, _MOMENTUM: self._momenta}
        return {key: own[name].clone() for key, own in kept.items() if name in own}

    def taken_from(self, states: Mapping[str, dict[str, Any]]) -> "CommonParameters":
        """Those of a checkpoint, as copies where these lie; they are taken out of its states, by name.

        Raises:
            ValueError: where it has others.
        """
        found = CommonParameters({}, momentum=False)
        found.parameters, found._momenta = (
            {name: state.pop(key) for name, state in states.items() if key in state}
            for key in (_PARAMETER, _MOMENTUM)
        )
        if found.parameters.keys() != self.parameters.keys() or found._momenta.keys() != self._momenta.keys():
            raise ValueError("the state was saved for other parameters, or with another momentum")
        # A gathered state, and one that was loaded with map_location="cpu", lies in main memory.
        for kept in (found.parameters, found._momenta):
            kept |= {name: each.to(self.parameters[name].device, copy=True) for name, each in kept.items()}
        return found
