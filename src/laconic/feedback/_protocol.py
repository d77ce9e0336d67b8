"""The interfaces of senders and receivers, and the plan of a round."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from laconic.kernels.tables import SegmentedVector
from laconic.messages import Message

Estimates = Literal["gradient", "step"]


@dataclass(frozen=True)
class Plan:
    """What a round needs, known from shared randomness before any gradient is computed.

    Args:
        dense: whether this round's message is the whole vector.
    """

    dense: bool = False


@runtime_checkable
class Sender(Protocol):
    """What one node remembers, or each node of a batch: gradient in, message out."""

    @property
    def round(self) -> int:
        """Number of messages sent so far."""

    def stage(
        self,
        gradient: Tensor | Sequence[Tensor] | SegmentedVector,
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """The message for this round's gradient; the memory stays until :meth:`commit`.

        Arguments and errors are those of :meth:`send`. Staging again replaces what was staged. The gradient
        and the message must not change before the commit.
        """

    def commit(self) -> None:
        """Let the memory move on, as the staged message says."""

    def roll_back(self) -> None:
        """Forget what is staged; the memory is as it was, bit for bit."""

    def send(
        self,
        gradient: Tensor | Sequence[Tensor],
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """The message for this round's gradient, staged and committed.

        Args:
            gradient: (..., d), finite; any per-node vector. Leading dimensions are batches of runs, and
                last of nodes where ``node`` is a tensor. Or a tensor for each segment of the layout, in its
                order and of one dtype, read where they lie. The first one's shape and accumulation dtype
                become the memories', where those were made for others; later ones are converted. The
                memories follow to the gradient's device.
            stepsize: where given, to a method whose ``estimates`` is "step": the stepsize that its
                memory is to hold. A number, or a tensor that broadcasts to (..., 1).

        Raises:
            ValueError: for a gradient of another shape.
            NotFiniteError: a ValueError, for a gradient that holds NaN or infinity or becomes infinite
                together with the memory or the stepsize. The memory is then as it was.
        """

    def error(self, message: Message, gradient: Tensor) -> tuple[float, float]:
        """The squared norms of what listeners miss after a committed message, and of the whole.

        The whole is the gradient, or its momentum; for EF14 it is what waited to be sent.

        Args:
            message: the last one that was committed.
            gradient: (d,) what it was made of.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that the sender remembers, as a copy that later rounds do not change."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another sender of the same layout remembered; ValueError if it does not fit."""


@runtime_checkable
class Receiver(Protocol):
    """What a listener remembers: the messages of all nodes in, an estimate of the mean out."""

    @property
    def round(self) -> int:
        """Number of rounds received so far."""

    def stage(
        self,
        messages: Message | Sequence[Message],
        out: Tensor | Sequence[Tensor] | SegmentedVector | None = None,
    ) -> Tensor | None:
        """The estimate after this round's messages; the memory stays until :meth:`commit`.

        Arguments, value and errors are those of :meth:`receive`. Neither messages nor estimate may change
        before the commit. ``out`` may also be a tensor for each segment, (numel,) or of its shape,
        contiguous and in main memory; then nothing is returned. Or a segmented vector with ``flat``, where
        sums may be deferred.
        """

    def commit(self) -> None:
        """Let the memory move on, as the staged messages say."""

    def roll_back(self) -> None:
        """Forget what is staged; the memory is as it was, bit for bit."""

    def receive(self, messages: Message | Sequence[Message], out: Tensor | None = None) -> Tensor:
        """The estimate of the mean over nodes after this round's messages, staged and committed.

        Args:
            messages: one message a node in the nodes' order, or a batch whose last leading dimension is
                the nodes.
            out: (..., d), where the estimate is written if given, rounded to its dtype.

        Returns:
            (..., d) in the accumulation dtype: ``out``, or a new tensor.

        Raises:
            ValueError: for a wrong number of messages, messages of another round, layout, batch or dtype,
                or an ``out`` of another shape; the memory is then as it was.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that the receiver remembers, as a copy that later rounds do not change."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another receiver of the same layout remembered; ValueError if it does not fit."""
