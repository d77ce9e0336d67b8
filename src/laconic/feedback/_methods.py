"""Feedback methods: DCGD, EF14, EF21, EF21+ and EF21-SGDM."""

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from laconic.compressors import Compressor
from laconic.feedback._encoder import Encoder, content_format, require_contractive
from laconic.feedback._estimators import Momentum
from laconic.feedback._protocol import Estimates, Plan, Receiver, Sender
from laconic.feedback._receivers import HoldingReceiver, LinearReceiver
from laconic.feedback._senders import (
    DIRECT,
    DRAIN,
    Init,
    NodeSender,
    first_content,
    track,
    track_or_replace,
)
from laconic.formats import MessageFormat
from laconic.layout import Layout


def _mean(nodes: int) -> tuple[float, ...]:
    if nodes < 1:
        raise ValueError(f"a receiver needs at least one node, got {nodes}")
    return (1.0 / nodes,) * nodes


def _check_init(init: str) -> None:
    if init not in (choices := get_args(Init)):
        raise ValueError(f"init must be one of {choices}, got {init!r}")


def _tracking_plan(init: Init, round: int) -> Plan:
    return Plan(dense=round == 0 and init in ("gradient", "bfloat16"))


def _tracking_format(
    compressor: Compressor,
    init: Init,
    layout: Layout,
    dtype: torch.dtype,
    round: int,
    *,
    choosing: bool = False,
) -> MessageFormat:
    content = first_content(init) if round == 0 else "compressed"
    return content_format(layout, compressor, content, dtype, choosing=choosing)


@dataclass(frozen=True)
class DCGD:
    """Compressed gradients, nothing remembered: ``x <- x - gamma mean C(grad f_i(x))``.

    Distributed compressed gradient descent ("On Biased Compression", Section 5). With a biased compressor
    and several nodes it may diverge however small the stepsize (Example 1), and with an unbiased one it
    stalls at a distance; it is here to be compared with. ``DCGD(Identity())`` is gradient descent.

    Example:
        >>> import torch, laconic
        >>> method = laconic.DCGD(laconic.TopK(1))
        >>> sender, receiver = method.sender(2), method.receiver(2, nodes=1)
        >>> receiver.receive([sender.send(torch.tensor([1.0, 3.0]))])
        tensor([0., 3.])
    """

    compressor: Compressor

    name: ClassVar[str] = "dcgd"
    estimates: ClassVar[Estimates] = "gradient"

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """One gradient a round."""
        return Plan()

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:  # noqa: ARG002
        """The format of the round's messages."""
        return content_format(layout, self.compressor, "compressed", dtype)

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender that remembers nothing."""
        encoder = Encoder(Layout.like(layout_or_like), self.compressor, node, seed)
        return NodeSender(encoder, DIRECT, layout_or_like, dtype)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver that remembers nothing: estimate = mean m_i."""
        return LinearReceiver(layout_or_like, _mean(nodes), dtype)


@dataclass(frozen=True)
class EF14:
    """Classic error feedback: what was not sent is added to the next gradient.

    With a stepsize given to ``send``, exactly Algorithm 1 of "On Biased Compression": the memory holds
    ``e + eta g``, and the estimate is a step, ``x <- x - estimate``. Without one, where an optimiser owns
    the stepsize, the memory holds gradients, and so does the estimate. The idea is of Seide et al., 2014.

    Args:
        compressor: a contractive compressor.

    Example:
        >>> import torch, laconic
        >>> method = laconic.EF14(laconic.TopK(1))
        >>> sender, receiver = method.sender(2), method.receiver(2, nodes=1)
        >>> for _ in range(4):
        ...     print(receiver.receive([sender.send(torch.tensor([1.0, 3.0]))]))
        tensor([0., 3.])
        tensor([0., 3.])
        tensor([3., 0.])
        tensor([0., 6.])
    """

    compressor: Compressor

    name: ClassVar[str] = "ef14"
    estimates: ClassVar[Estimates] = "step"

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """One gradient a round."""
        return Plan()

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:  # noqa: ARG002
        """The format of the round's messages."""
        return content_format(layout, self.compressor, "compressed", dtype)

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender that remembers e, starting at 0."""
        layout = Layout.like(layout_or_like)
        require_contractive(self.compressor, layout, "EF14")
        return NodeSender(Encoder(layout, self.compressor, node, seed), DRAIN, layout_or_like, dtype)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver that remembers nothing: estimate = mean m_i."""
        return LinearReceiver(layout_or_like, _mean(nodes), dtype)


@dataclass(frozen=True)
class EF21:
    """Error feedback that tracks the gradient: ``h_i <- h_i + C(grad f_i - h_i)``, estimate mean h_i.

    "EF21", 2021, Algorithm 2 (distributed); JMLR version of EF21 with Bells and Whistles, Algorithm 7. The
    receiver needs only G = mean h_i, which changes by the mean of the messages.

    Args:
        compressor: a contractive compressor.
        init: what h_i starts as. "gradient": the first gradient, sent whole once. "bfloat16": the first
            gradient rounded to bfloat16, sent at half the bytes. "compressed": the first gradient
            compressed. "zero": 0, and nothing is sent in the first round.

    Example:
        >>> import torch, laconic
        >>> method = laconic.EF21(laconic.TopK(1), init="compressed")
        >>> sender, receiver = method.sender(2), method.receiver(2, nodes=1)
        >>> for _ in range(2):
        ...     print(receiver.receive([sender.send(torch.tensor([1.0, 3.0]))]))
        tensor([0., 3.])
        tensor([1., 3.])
    """

    compressor: Compressor
    init: Init = "gradient"

    name: ClassVar[str] = "ef21"
    estimates: ClassVar[Estimates] = "gradient"

    def __post_init__(self) -> None:
        """Check init."""
        _check_init(self.init)

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """One gradient a round; the first round is dense where h starts at the gradient."""
        return _tracking_plan(self.init, round)

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:
        """The format of the round's messages."""
        return _tracking_format(self.compressor, self.init, layout, dtype, round)

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender that remembers h_i."""
        layout = Layout.like(layout_or_like)
        require_contractive(self.compressor, layout, "EF21")
        encoder = Encoder(layout, self.compressor, node, seed)
        return NodeSender(encoder, track(self.init), layout_or_like, dtype)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver that remembers G = mean h_i."""
        return LinearReceiver(layout_or_like, _mean(nodes), dtype, lam=1.0)


@dataclass(frozen=True)
class EF21Plus:
    """EF21 that restarts a node's memory from C(grad f_i) in rounds where that is nearer.

    "EF21", 2021, Algorithm 3 (EF21+). Sender and receiver spend one flag bit a node and round on the
    choice, and the receiver holds every h_i: n * d numbers.

    Args:
        compressor: a contractive compressor without random draws.
        init: as for :class:`EF21`.

    Example:
        >>> import torch, laconic
        >>> method = laconic.EF21Plus(laconic.TopK(1), init="compressed")
        >>> sender, receiver = method.sender(2), method.receiver(2, nodes=1)
        >>> for gradient in (torch.tensor([1.0, 3.0]), torch.tensor([5.0, 0.0])):
        ...     print(receiver.receive([sender.send(gradient)]))
        tensor([0., 3.])
        tensor([5., 0.])
    """

    compressor: Compressor
    init: Init = "gradient"

    name: ClassVar[str] = "ef21+"
    estimates: ClassVar[Estimates] = "gradient"

    def __post_init__(self) -> None:
        """Check init."""
        _check_init(self.init)

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """As EF21."""
        return _tracking_plan(self.init, round)

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:
        """The format of the round's messages."""
        return _tracking_format(self.compressor, self.init, layout, dtype, round, choosing=True)

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """A sender that remembers h_i; ValueError for a random compressor."""
        layout = Layout.like(layout_or_like)
        if self.compressor.random:
            raise ValueError(
                f"EF21+ compares two outcomes of its compressor, and {self.compressor!r} is random: "
                "use EF21, or a deterministic compressor such as TopK"
            )
        require_contractive(self.compressor, layout, "EF21+")
        encoder = Encoder(layout, self.compressor, node, seed)
        return NodeSender(encoder, track_or_replace(self.init), layout_or_like, dtype)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver that holds all h_i."""
        return HoldingReceiver(layout_or_like, _mean(nodes), dtype)


@dataclass(frozen=True)
class EF21SGDM:
    """EF21 behind momentum: ``v_i <- (1 - eta) v_i + eta g_i``, then EF21 on v_i.

    Fatkhullin, Tyurin and Richtárik, "Momentum Provably Improves Error Feedback!", 2023, Algorithm 1: with
    stochastic gradients EF21's noise floor falls with eta and with the number of nodes.

    Args:
        compressor: a contractive compressor.
        eta: weight of the NEW gradient, in (0, 1]; 1 is EF21.
        init: as for :class:`EF21`.

    Example:
        >>> import laconic
        >>> laconic.EF21SGDM(laconic.TopK(0.01), eta=0.1).name
        'ef21-sgdm'
    """

    compressor: Compressor
    eta: float = 0.1
    init: Init = "gradient"

    name: ClassVar[str] = "ef21-sgdm"
    estimates: ClassVar[Estimates] = "gradient"

    def __post_init__(self) -> None:
        """Check eta and init."""
        Momentum(self.eta)
        _check_init(self.init)

    def plan(self, round: int, node: int = 0, seed: int = 0) -> Plan:  # noqa: ARG002
        """As EF21."""
        return _tracking_plan(self.init, round)

    def format(self, layout: Layout, dtype: torch.dtype, round: int) -> MessageFormat:
        """The format of the round's messages."""
        return _tracking_format(self.compressor, self.init, layout, dtype, round)

    def sender(
        self,
        layout_or_like: Layout | Tensor | int,
        node: int | Tensor = 0,
        seed: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Sender:
        """EF21's sender behind momentum."""
        layout = Layout.like(layout_or_like)
        require_contractive(self.compressor, layout, "EF21-SGDM")
        encoder = Encoder(layout, self.compressor, node, seed)
        return NodeSender(encoder, track(self.init), layout_or_like, dtype, Momentum(self.eta))

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """EF21's receiver."""
        return EF21(self.compressor, self.init).receiver(layout_or_like, nodes, dtype)
