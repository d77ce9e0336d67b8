"""Estimators, which turn a node's gradients into what its sender compresses, such as a momentum."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Estimator(Protocol):
    """A rule from the last estimate and a new gradient to the next estimate."""

    def __call__(self, estimate: Tensor | None, gradient: Tensor) -> Tensor:
        """The next estimate, a new tensor; there is no last one in the first round."""


@dataclass(frozen=True)
class Momentum:
    """``v <- (1 - eta) v + eta g``, starting at the first gradient.

    Args:
        eta: weight of the new gradient, in (0, 1].
    """

    eta: float

    def __post_init__(self) -> None:
        """Check eta."""
        if not 0.0 < self.eta <= 1.0:
            raise ValueError(f"eta is the weight of the new gradient and must lie in (0, 1], got {self.eta}")

    def __call__(self, estimate: Tensor | None, gradient: Tensor) -> Tensor:
        """Two products, then one sum: no fused multiply-add."""
        if estimate is None:
            return gradient.clone()
        return estimate * (1.0 - self.eta) + gradient * self.eta
