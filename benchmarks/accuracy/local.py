"""Local steps on simulated nodes: the rule of ``laconic.optim.LocalSteps``, node by node in one process."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import laconic
from laconic.feedback import Feedback
from laconic.wire import pack


class LocalNodes:
    """n copies of a model with an AdamW each, whose differences from the common parameters are exchanged.

    Args:
        model: holds the common parameters.
        nodes: n.
        feedback: of the differences.
        make: an inner optimiser of a copy's parameters.
        clip: of each node's own gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        nodes: int,
        feedback: Feedback,
        make: Callable[[nn.Module], Optimizer],
        clip: float,
    ) -> None:
        """Copy the model for each node."""
        self.common = dict(model.named_parameters())
        self.copies = [copy.deepcopy(model) for _ in range(nodes)]
        self.optimizers = [make(each) for each in self.copies]
        layout = laconic.Layout.of({name: p.shape for name, p in self.common.items()})
        self._senders = [feedback.sender(layout, node=node) for node in range(nodes)]
        self._receiver = feedback.receiver(layout, nodes)
        self._clip = clip
        self.bits = 0.0

    def step(self, losses: list[Callable[[nn.Module], Tensor]]) -> float:
        """A step of each node on its own; the mean loss."""
        total = 0.0
        for model, optimizer, loss_of in zip(self.copies, self.optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self._clip)
            optimizer.step()
            total += float(loss.detach()) / len(losses)
        return total

    @torch.no_grad()
    def exchange(self) -> None:
        """Move the common parameters by the mean of what arrives; every node goes on from there."""
        messages = []
        for model, sender in zip(self.copies, self._senders, strict=True):
            own = dict(model.named_parameters())
            difference = torch.cat([(common - own[name]).view(-1) for name, common in self.common.items()])
            messages.append(sender.send(difference))
        self.bits += 8 * pack(messages[0]).numel()
        mean, start = self._receiver.receive(messages), 0
        for name, common in self.common.items():
            common.sub_(mean[start : start + common.numel()].view_as(common))
            start += common.numel()
            for model in self.copies:
                model.get_parameter(name).copy_(common)


def adamw(lr: float, betas: tuple[float, float], weight_decay: float) -> Callable[[nn.Module], Optimizer]:
    """Makes a fused AdamW of a model."""
    return lambda model: AdamW(model.parameters(), lr, betas, weight_decay=weight_decay, fused=True)
