"""SGD on every node, its gradient or momentum compressed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.comm import Stats
from laconic.compressors import TopK
from laconic.feedback import EF14, Feedback
from laconic.optim._adamw import Parameters
from laconic.optim._base import Node, opened, refuse_groups
from laconic.optim._replicas import warn_of_momentum
from laconic.session._exempt import Exempt, vectors_and_small
from laconic.session._gradients import (
    check_positive,
    check_setting,
    local_gradient,
)


class CompressedSGD(Optimizer):
    r"""SGD whose step is compressed with error feedback; in the place of DDP and SGD.

    .. math::
        m_i &\leftarrow \mu m_i + \min(1, \text{clip} / |g_i|)\, g_i \\
        x &\leftarrow (1 - \gamma \lambda) x - \text{feedback}(\gamma m_1, \ldots, \gamma m_n)

    As for :class:`CompressedAdamW`, the learning rate :math:`\gamma` is inside the memory of a feedback whose
    ``estimates`` is "step" (EF14: this is Algorithm 1 of "On Biased Compression for Distributed Learning")
    and multiplies the mean of others (EF21: Algorithm 2 of "EF21"). Weight decay acts on every node after
    the mean, which without momentum is the same as adding :math:`\lambda x` to the gradient.

    Momentum is 0 by default, since error feedback at low density averages already. A learning rate tuned
    with momentum :math:`\mu` becomes :math:`\gamma / (1 - \mu)`.

    *Measured* in a first study (a byte-level transformer of 391 264 parameters, 4 nodes with 256 tokens each
    a step, 400 steps, most rows one seed): EF14 and Top-1 % with momentum 0, clip 0.5 and learning rate 2
    ends 0.4 % above dense SGD with momentum 0.9, clip 0.5 and learning rate 0.2 in validation loss; each at
    its best learning rate (4 and 0.4) 4.0 % above. With momentum 0.9 EF14 at its best was 13 % above.
    EF21-SGDM at 1 % was 20 % above, at one learning rate: EF21's own case is full gradients and large
    batches. *Not* measured there: other models and data, convolutional networks, nodes with different data,
    other numbers of nodes, weight decay.

    Args:
        params: parameters, groups, or named parameters, which give checkpoints their names. A group may
            have its own lr, momentum, weight_decay and clip.
        lr: the learning rate.
        feedback: what the step goes through.
        momentum: :math:`\mu`, of every node's own momentum, before the compressor.
        weight_decay: decoupled.
        clip: a node's gradient is shortened to this norm; None does not. Groups with the same clip share
            one norm.
        process_group: the ranks; None is all of them. Without ``torch.distributed`` there is one node.
        exempt: which parameters travel whole, by name and tensor, in bfloat16 through the same feedback.
        exact: whether exempt parameters travel exactly.
        seed: of random compressors; alike on all ranks.
        timeout_s: how long to wait for the other ranks, in seconds.
        overlap: begin to send while the backward pass still runs; needs clip=None, which waits for the whole
            norm. It changes no value. Learning rates must then be set before the backward pass, gradients
            left alone after it, and all backward passes of a step but the last be put into
            :meth:`accumulate`; ``GradScaler`` is refused.
        adaptive: whether positions travel in blocks that adapt to their density: fewer bytes, but one more
            exchange, of sizes, a step; alike on all ranks.

    Raises:
        ValueError: for a setting out of its range, a compressor that the feedback cannot use, or ranks
            with different parameters.
        TypeError: for complex, integer or sparse parameters.

    Warns:
        UserWarning: where momentum > 0 and the feedback keeps less than 5 % of the coordinates.

    Void steps, ``GradScaler`` and checkpoints are as for :class:`CompressedAdamW`.

    Example:
        >>> import torch, laconic
        >>> x = torch.nn.Parameter(torch.tensor([[4.0, 2.0]]))
        >>> feedback = laconic.EF14(laconic.TopK(1))
        >>> optimizer = laconic.optim.CompressedSGD([x], 0.5, feedback, exempt=lambda name, tensor: False)
        >>> for _ in range(2):
        ...     x.grad = x.detach().clone()
        ...     optimizer.step()
        ...     print(x.data)
        tensor([[2., 2.]])
        tensor([[2., 0.]])
        >>> optimizer.close()
    """

    _step_supports_amp_scaling = True
    """GradScaler then calls step() on every rank, also where it found an infinity on one alone."""

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        feedback: Feedback = EF14(TopK(0.01)),  # noqa: B008 - frozen
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        clip: float | None = None,
        process_group: dist.ProcessGroup | None = None,
        exempt: Exempt = vectors_and_small,
        exact: bool = False,
        seed: int = 0,
        timeout_s: float = 600.0,
        overlap: bool = False,
        adaptive: bool = False,
    ) -> None:
        """Check the settings, meet the other ranks, and take over rank 0's parameters."""
        self._node: Node | None = None
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "clip": clip})
        self._node = Node(
            self,
            self._moved,
            feedback,
            exempt=exempt,
            exact=exact,
            process_group=process_group,
            seed=seed,
            timeout_s=timeout_s,
            overlap=overlap,
            adaptive=adaptive,
        )
        if any(group["momentum"] > 0 for group in self.param_groups):
            warn_of_momentum("momentum > 0", feedback, self._node.layout, stacklevel=2)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, while the optimiser is made; later it is refused.

        Raises:
            RuntimeError: once the optimiser is made.
            ValueError: for a setting out of its range.
        """
        refuse_groups(self._node)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check_setting("lr", group["lr"], 0.0)
        check_setting("momentum", group["momentum"], 0.0, 1.0)
        check_setting("weight_decay", group["weight_decay"], 0.0)
        if group["clip"] is not None:
            check_positive("clip", group["clip"])

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every rank; void everywhere where a gradient was not finite anywhere.

        Args:
            closure: evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            RuntimeError: for a gradient of a parameter that was frozen when the optimiser was made.
            laconic.ExchangeError: where another rank died or hangs.
        """
        return opened(self._node).step(closure, self._advance)

    def accumulate(self) -> AbstractContextManager[None]:
        """Where all backward passes of a step but the last belong with ``overlap=True``; else no matter."""
        return opened(self._node).accumulate()

    def _moved(self, parameter: Tensor, group: dict[str, Any], factor: float) -> Tensor:
        """The momentum after this gradient, as a new tensor; the state stays as it is."""
        gradient = local_gradient(parameter, factor)
        old = self.state[parameter].get("momentum_buffer") if parameter in self.state else None
        return gradient if old is None else old * group["momentum"] + gradient

    def _advance(self, parameter: Tensor, group: dict[str, Any], factor: float) -> None:
        if group["momentum"] > 0:
            self.state[parameter]["momentum_buffer"] = self._moved(parameter, group, factor)

    @property
    def skipped(self) -> int:
        """Steps that were void."""
        return self.stats().skipped

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far."""
        return opened(self._node).stats()

    def state_dict(self) -> dict[str, Any]:
        """This rank's settings, momentum and memories; every rank saves its own."""
        return opened(self._node).with_memories(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what this rank saved; parameters are the model's to restore, on every rank.

        Raises:
            ValueError: for the state of another rank, method, model or optimiser.
        """
        opened(self._node).load(state_dict, super().load_state_dict)

    def close(self) -> None:
        """End the exchange's thread and process group; the optimiser can make no more steps."""
        if self._node is not None:
            self._node.close()
