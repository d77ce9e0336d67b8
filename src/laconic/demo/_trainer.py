"""Optimisation step of each kind of method on one node: exchange, then update."""

from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn

from laconic.comm import Exchange
from laconic.demo._methods import Method
from laconic.layout import Layout
from laconic.optim import CompressedAdamW


class Trainer(Protocol):
    """A step from the gradients that the parameters hold."""

    def step(self, lr: float) -> None:
        """Exchange with the other nodes and change the parameters."""

    def handed(self) -> int:
        """Bytes that this node has handed to collectives for each other node so far, its message."""

    def close(self) -> None:
        """End the exchange."""


def make_trainer(method: Method, model: nn.Module) -> Trainer:
    """The trainer of a method."""
    if method.sends == "all":
        return _AllReduce(method, model)
    return _Gradients(method, model) if method.sends == "gradient" else _Updates(method, model)


class _AllReduce:
    def __init__(self, method: Method, model: nn.Module) -> None:
        self._clip = method.clip
        self._parameters = list(model.parameters())
        self._optimizer = _adamw(method, model)
        self._bytes = 0

    def step(self, lr: float) -> None:
        _shorten(self._parameters, self._clip)
        gradients = [parameter.grad for parameter in self._parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients if g is not None]).div_(dist.get_world_size())
        half = flat.to(torch.bfloat16)
        dist.all_reduce(half)
        self._bytes += half.numel() * half.element_size()
        _write(self._parameters, half.to(flat.dtype))
        _go(self._optimizer, lr)

    def handed(self) -> int:
        return self._bytes

    def close(self) -> None:
        pass


class _Gradients:
    def __init__(self, method: Method, model: nn.Module) -> None:
        assert method.feedback is not None
        self._clip = method.clip
        self._model = model
        self._optimizer = _adamw(method, model)
        layout = Layout.of(dict(model.named_parameters()))
        self._exchange = Exchange(layout, method.feedback, timeout_s=120.0)

    def step(self, lr: float) -> None:
        _shorten(list(self._model.parameters()), self._clip)
        self._exchange.reduce_(
            {name: p.grad for name, p in self._model.named_parameters() if p.grad is not None}
        )
        _go(self._optimizer, lr)

    def handed(self) -> int:
        return self._exchange.stats().bytes_sent // max(1, self._exchange.size - 1)

    def close(self) -> None:
        self._exchange.close()


class _Updates:
    def __init__(self, method: Method, model: nn.Module) -> None:
        assert method.feedback is not None
        self._optimizer = CompressedAdamW(
            model.named_parameters(),
            lr=method.lr,
            feedback=method.feedback,
            betas=(method.beta1, method.beta2),
            weight_decay=0.0,
            clip=method.clip,
            timeout_s=120.0,
        )

    def step(self, lr: float) -> None:
        _go(self._optimizer, lr)

    def handed(self) -> int:
        return self._optimizer.stats().bytes_sent // max(1, dist.get_world_size() - 1)

    def close(self) -> None:
        self._optimizer.close()


def _adamw(method: Method, model: nn.Module) -> torch.optim.AdamW:
    betas = (method.beta1, method.beta2)
    return torch.optim.AdamW(model.parameters(), method.lr, betas=betas, weight_decay=0.0, fused=True)


def _go(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


def _shorten(parameters: list[nn.Parameter], clip: float | None) -> None:
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)


def _write(parameters: list[nn.Parameter], flat: torch.Tensor) -> None:
    offset = 0
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.copy_(flat[offset : offset + parameter.numel()].view_as(parameter))
        offset += parameter.numel()
