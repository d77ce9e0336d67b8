"""Feedback methods: DCGD, EF14, EF21, EF21+ and EF21-SGDM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from laconic.feedback._encoder import Content
from laconic.feedback._estimators import Estimator, Momentum
from laconic.feedback._method import Feedback, equal_weights
from laconic.feedback._protocol import Estimates, Receiver
from laconic.feedback._receivers import HoldingReceiver
from laconic.feedback._update_rules import (
    PendingUpdate,
    RoundInputs,
    stage_difference,
    stage_difference_or_restart,
    stage_direct,
    stage_residual,
)
from laconic.formats import accumulation_dtype
from laconic.layout import Layout
from laconic.messages import Message

Init = Literal["gradient", "bfloat16", "compressed", "zero"]
_FIRST: Mapping[Init, Content] = {
    "gradient": "dense",
    "bfloat16": "rounded",
    "compressed": "compressed",
    "zero": "silent",
}


def _check_init(init: str) -> None:
    if init not in (choices := get_args(Init)):
        raise ValueError(f"init must be one of {choices}, got {init!r}")


def _content(init: Init, round: int) -> Content:
    return _FIRST[init] if round == 0 else "compressed"


@dataclass(frozen=True)
class DCGD(Feedback):
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

    name: ClassVar[str] = "dcgd"

    def check(self, layout: Layout) -> None:
        """Any compressor."""

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """m = C(g)."""
        return stage_direct(inputs)


@dataclass(frozen=True)
class EF14(Feedback):
    """Classic error feedback: what was not sent is added to the next gradient.

    With a stepsize given to ``send``, exactly Algorithm 1 of "On Biased Compression": the memory holds
    ``e + eta g``, and the estimate is a step, ``x <- x - estimate``. Without one, where an optimiser owns
    the stepsize, the memory holds gradients, and so does the estimate. The idea is of Seide et al., 2014.

    With ``decay`` < 1 the memory fades, ``e <- decay e + g`` before compressing: momentum inside the error
    feedback, as in DeMo (Peng et al., 2024) and SparseLoCo (Sarfi et al., 2025). No theorem here covers it.
    Measured (one byte-level transformer of 83,968 parameters, 4 nodes): with an exchange in every step 0.99
    and 1 are equal within noise and 0.95 is worse by 2 %; with local steps
    (:class:`laconic.optim.LocalSteps`) 0.95 was no worse at 4 of them and 2 % better at 16 (one seed).

    Args:
        compressor: a contractive compressor.
        decay: in (0, 1]: what the memory is multiplied by once a round is committed.
        residual: the dtype that the memory is kept in, float32 or bfloat16, to which it is rounded (to the
            nearest, ties to even) after a round in float32. Vectors of float64 keep it in float64.

    Raises:
        ValueError: for a decay outside (0, 1], or another dtype.

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

    decay: float = 1.0
    residual: torch.dtype = torch.float32

    name: ClassVar[str] = "ef14"
    memories: ClassVar[tuple[str, ...]] = ("residual",)
    estimates: ClassVar[Estimates] = "step"

    def __post_init__(self) -> None:
        """Check decay and dtype."""
        super().__post_init__()
        if not 0.0 < self.decay <= 1.0:
            raise ValueError(f"decay must lie in (0, 1], got {self.decay}")
        if self.residual not in (torch.float32, torch.bfloat16):
            raise ValueError(f"residual must be torch.float32 or torch.bfloat16, got {self.residual}")

    @property
    def memory_dtype(self) -> torch.dtype:
        """Of the residual."""
        return self.residual

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """m = C(e + g), e <- decay (e + g - m)."""
        return stage_residual(inputs, self.decay)

    def error(
        self,
        memories: Mapping[str, Tensor],
        message: Message,
        gradient: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """What waits to be sent, and what waited before the message; both before the decay."""
        residual = memories["residual"]
        residual = residual.to(accumulation_dtype(residual.dtype)) / self.decay
        return residual, residual + message.dense()


@dataclass(frozen=True)
class EF21(Feedback):
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

    init: Init = "gradient"

    name: ClassVar[str] = "ef21"
    memories: ClassVar[tuple[str, ...]] = ("memory",)

    def __post_init__(self) -> None:
        """Check init."""
        super().__post_init__()
        _check_init(self.init)

    def content(self, round: int) -> Content:
        """In round 0 as ``init`` says."""
        return _content(self.init, round)

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """m = C(g - h), h <- h + m."""
        return stage_difference(inputs)

    def receiver_weights(self) -> tuple[float, float]:
        """G = mean h_i moves as every h_i does."""
        return 1.0, 1.0


@dataclass(frozen=True)
class EF21Plus(Feedback):
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

    init: Init = "gradient"

    name: ClassVar[str] = "ef21+"
    memories: ClassVar[tuple[str, ...]] = ("memory",)
    replace_flags: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check init."""
        super().__post_init__()
        _check_init(self.init)

    def content(self, round: int) -> Content:
        """In round 0 as ``init`` says."""
        return _content(self.init, round)

    def check(self, layout: Layout) -> None:
        """A contractive compressor without draws."""
        if self.compressor.random:
            raise ValueError(
                f"EF21+ compares two outcomes of its compressor, and {self.compressor!r} is random: "
                "use EF21, or a deterministic compressor such as TopK"
            )
        super().check(layout)

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """The better of C(g - h), added to h, and C(g), in its place."""
        return stage_difference_or_restart(inputs)

    def receiver(
        self, layout_or_like: Layout | Tensor | int, nodes: int, dtype: torch.dtype = torch.float32
    ) -> Receiver:
        """A receiver that holds all h_i."""
        return HoldingReceiver(layout_or_like, equal_weights(nodes), dtype)


@dataclass(frozen=True)
class EF21SGDM(Feedback):
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

    eta: float = 0.1
    init: Init = "gradient"

    name: ClassVar[str] = "ef21-sgdm"
    memories: ClassVar[tuple[str, ...]] = ("memory",)

    def __post_init__(self) -> None:
        """Check eta and init."""
        super().__post_init__()
        Momentum(self.eta)
        _check_init(self.init)

    def content(self, round: int) -> Content:
        """In round 0 as ``init`` says."""
        return _content(self.init, round)

    def estimator(self) -> Estimator:
        """The momentum."""
        return Momentum(self.eta)

    def stage(self, inputs: RoundInputs) -> PendingUpdate:
        """EF21 on the momentum."""
        return stage_difference(inputs)

    def receiver_weights(self) -> tuple[float, float]:
        """G = mean h_i moves as every h_i does."""
        return 1.0, 1.0
