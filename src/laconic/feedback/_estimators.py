"""Estimators: what stands in front of a sender and turns gradients into what is to be sent."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from laconic.feedback._encoder import checked, widened
from laconic.feedback._protocol import Sender
from laconic.feedback._state import snapshot
from laconic.layout import Layout
from laconic.messages import Message


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


class EstimatingSender:
    """A sender behind an estimator."""

    def __init__(self, layout: Layout, estimator: Estimator, sender: Sender) -> None:
        """Start without an estimate."""
        self._layout = layout
        self._estimator = estimator
        self._sender = sender
        self.estimate: Tensor | None = None
        self._staged: Tensor | None = None

    @property
    def round(self) -> int:
        """Number of messages sent so far."""
        return self._sender.round

    def stage(
        self, gradient: Tensor, previous: Tensor | None = None, stepsize: float | Tensor | None = None
    ) -> Message:
        """The message of the estimate; nothing is remembered until :meth:`commit`."""
        g = widened(checked(gradient, self._layout, self.estimate), self.estimate)
        estimate = self._estimator(self.estimate, g)
        message = self._sender.stage(estimate, previous, stepsize)
        self._staged = estimate
        return message

    def commit(self) -> None:
        """Remember the estimate, and what the sender behind remembers."""
        self._sender.commit()
        self.estimate, self._staged = self._staged, None

    def roll_back(self) -> None:
        """Forget what is staged."""
        self._sender.roll_back()
        self._staged = None

    def send(
        self, gradient: Tensor, previous: Tensor | None = None, stepsize: float | Tensor | None = None
    ) -> Message:
        """The message of the estimate, staged and committed."""
        message = self.stage(gradient, previous, stepsize)
        self.commit()
        return message

    def state_dict(self) -> dict[str, Any]:
        """What the sender behind remembers, and the estimate (..., d)."""
        return {**self._sender.state_dict(), "estimate": snapshot(self.estimate)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over both."""
        if "estimate" not in state:
            raise ValueError("the state has no 'estimate'; load it into the method that saved it")
        self._sender.load_state_dict({key: value for key, value in state.items() if key != "estimate"})
        self.estimate = snapshot(state["estimate"])
