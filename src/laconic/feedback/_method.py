"""The base class of feedback methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors import Compressor, parse_compressor
from laconic.feedback._encoder import Content, Encoder, content_format, require_contractive
from laconic.feedback._estimators import Estimator
from laconic.feedback._protocol import Estimates, Plan, Receiver, Sender
from laconic.feedback._receivers import LinearReceiver
from laconic.feedback._senders import NodeSender
from laconic.feedback._update_rules import PendingUpdate, RoundInputs
from laconic.formats import MessageFormat
from laconic.layout import Layout
from laconic.messages import Message


@dataclass(frozen=True)
class Feedback(ABC):
    """A method: what nodes and listeners remember of what was not sent.

    To write one, give :attr:`name`, the names of its :attr:`memories` and :meth:`stage`; and say by
    :meth:`receiver_weights` what listeners remember. Everything else follows: batches of nodes and runs,
    staging and rolling back, state dicts, DDP, the optimisers. A frozen dataclass makes its settings visible.
    ``docs/your-own-method.md`` has an example.

    Args:
        compressor: what is kept; a name with arguments, as "top-k:0.01", stands for the compressor.
    """

    compressor: Compressor

    name: ClassVar[str]
    """The method's short name, as on the command line."""

    memories: ClassVar[tuple[str, ...]] = ()
    """The names of what a node remembers: tensors of the gradient's shape, zero at the start. One that both
    ends hold, so that its mean over nodes is the estimate, is called "memory"."""

    estimates: ClassVar[Estimates] = "gradient"
    """What ``receive`` returns when ``send`` was given its stepsize: "step" has it inside.

    Without a stepsize, every method estimates a gradient."""

    replace_flags: ClassVar[bool] = False
    """Whether messages have a flag for each segment that says whether it replaces the memory (EF21+)."""

    def __post_init__(self) -> None:
        """Read a compressor that is given by name."""
        if isinstance(self.compressor, str):
            object.__setattr__(self, "compressor", parse_compressor(self.compressor))
        elif not isinstance(self.compressor, Compressor):
            raise TypeError(
                f"{type(self).__name__} needs a compressor, as TopK(0.01) or 'top-k:0.01', "
                f"got {self.compressor!r}"
            )

    @abstractmethod
    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """A node's message in a round, and its memories in the next.

        Memories change by what the message decodes to, ``message.dense()``, which is what listeners know.

        Args:
            inputs: gradient, memories and round. ``inputs.compress(x)`` is the message of a vector.

        Raises:
            NotFiniteError: where what is to be compressed is not finite; the memories are then as before.
        """

    def error(
        self, memories: Mapping[str, Tensor], message: Message, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What listeners miss after a message, and the whole of which it is a part: (..., d) each.

        Args:
            memories: as they are after the message.
            message: what was sent.
            gradient: what it was made of.
        """
        known = memories["memory"] if "memory" in memories else message.dense()
        return gradient - known, gradient

    def receiver_weights(self) -> tuple[float, float]:
        """(lam, nu): ``estimate = G + nu * mean m_i``, then ``G <- G + lam * mean m_i``.

        (0, 1), the default, is for methods whose messages mean the whole; (1, 1) for those whose messages are
        added to what both ends hold.
        """
        return 0.0, 1.0

    @property
    def memory_dtype(self) -> torch.dtype:
        """Of what a node remembers of vectors that accumulate in float32; float64 is kept as it is."""
        return torch.float32

    def content(self, round: int) -> Content:  # noqa: ARG002
        """What a round's message holds of a vector: "compressed", "dense", "rounded" or "silent"."""
        return "compressed"

    def estimator(self) -> Estimator | None:
        """What turns gradients into what is compressed, such as a momentum; None: nothing."""
        return None

    def check(self, layout: Layout) -> None:
        """Refuse a compressor that the method cannot use: by default one that is not contractive.

        Raises:
            ValueError: naming the remedy.
        """
        require_contractive(self.compressor, layout, self.name.upper())

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """What the round needs, known before any gradient."""
        return Plan(dense=self.content(round) in ("dense", "rounded"))

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:
        """The format of a round's messages, known to both ends before there is data.

        Args:
            layout: the segments.
            dtype: of the gradients.
            round: the round.
        """
        return content_format(
            layout, self.compressor, self.content(round), dtype, replace_flags=self.replace_flags
        )

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender with memories of zeros.

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
        layout = Layout.like(layout_or_like)
        self.check(layout)
        return NodeSender(Encoder(layout, self.compressor, node, seed), self, layout_or_like, dtype)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver with a memory of zeros for messages of ``nodes`` nodes, weighted equally."""
        lam, nu = self.receiver_weights()
        return LinearReceiver(layout_or_like, equal_weights(nodes), dtype, lam=lam, nu=nu)


def equal_weights(nodes: int) -> tuple[float, ...]:
    """1 / nodes for each.

    Raises:
        ValueError: for no node.
    """
    if nodes < 1:
        raise ValueError(f"a receiver needs at least one node, got {nodes}")
    return (1.0 / nodes,) * nodes
