"""The interfaces of feedback methods: plan, sender and receiver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from laconic.compressors import Compressor
from laconic.formats import MessageFormat
from laconic.layout import Layout
from laconic.messages import Message

Estimates = Literal["gradient", "step"]


@dataclass(frozen=True)
class Plan:
    """What a round needs, known from shared randomness before any gradient is computed.

    Args:
        gradient: "none", "minibatch", "both" (the same minibatch at this iterate and at the last) or
            "full". A problem without minibatches serves its full gradient for either.
        dense: whether this round's message is the whole vector.
    """

    gradient: Literal["none", "minibatch", "both", "full"] = "minibatch"
    dense: bool = False


@runtime_checkable
class Sender(Protocol):
    """What one node remembers, or each node of a batch: gradient in, message out."""

    @property
    def round(self) -> int:
        """Number of messages sent so far."""

    def stage(
        self,
        gradient: Tensor | Sequence[Tensor],
        previous: Tensor | None = None,
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
        previous: Tensor | None = None,
        stepsize: float | Tensor | None = None,
    ) -> Message:
        """The message for this round's gradient, staged and committed.

        Args:
            gradient: (..., d), finite; any per-node vector. Leading dimensions are batches of runs, and
                last of nodes where ``node`` is a tensor. Or a tensor for each segment of the layout, in its
                order and of one dtype, read where they lie. The first one's shape and accumulation dtype
                become the memories', where those were made for others; later ones are converted.
            previous: the same minibatch's gradient at the last iterate, where the plan asks for it.
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
        self, messages: Message | Sequence[Message], out: Tensor | Sequence[Tensor] | None = None
    ) -> Tensor | None:
        """The estimate after this round's messages; the memory stays until :meth:`commit`.

        Arguments, value and errors are those of :meth:`receive`. Neither messages nor estimate may change
        before the commit. ``out`` may also be a tensor for each segment, (numel,) or of its shape,
        contiguous and in main memory; then nothing is returned.
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


@runtime_checkable
class Feedback(Protocol):
    """A method: what nodes and listeners remember of what was not sent."""

    @property
    def name(self) -> str:
        """The method's short name, as on the command line."""

    @property
    def compressor(self) -> Compressor:
        """What is kept."""

    @property
    def estimates(self) -> Estimates:
        """What ``receive`` returns when ``send`` was given its stepsize: "step" has it inside.

        Without a stepsize, every method estimates a gradient.
        """

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:
        """What the round needs."""

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:
        """The format of a round's messages, known to both ends before there is data.

        Args:
            layout: the segments.
            dtype: of the gradients.
            round: the round.
        """

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender with an empty memory.

        Args:
            layout_or_like: a layout, or a tensor (..., d) or a number d for a single segment.
            node: this node's number; a tensor that broadcasts to the gradient's leading dimensions for
                a batch of nodes.
            seed: the seed of all draws, alike on all nodes; a tensor likewise for a batch of runs.
            dtype: of the gradients; where ``layout_or_like`` is a tensor, its own.

        Raises:
            ValueError: for settings that do not fit the layout, or a compressor that the method cannot
                use.
        """

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver with an empty memory for messages of ``nodes`` nodes, weighted equally."""
