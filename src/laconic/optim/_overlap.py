"""Exchanging updates while the backward pass still runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from laconic.optim._replicas import Replicas

BUCKET = 2**20
"""A message is begun when so many numbers are ready; how many makes no difference to any value."""


class Early:
    """Sends each bucket of updates as soon as its gradients are there.

    Buckets hold parameters in the reverse of their order, in which gradients mostly become ready, and are
    sent in the same order on every rank, whatever the order on this one.

    Args:
        names: the parameters with their names.
        replicas: what the updates go through.
        update: what is sent of a parameter, given that its gradient is ready.
        rates: the learning rates that it is sent with.
    """

    def __init__(
        self,
        names: Mapping[Tensor, str],
        replicas: Replicas,
        update: Callable[[Tensor], Tensor],
        rates: Callable[[], list[float]],
    ) -> None:
        """Watch the parameters."""
        self._names = names
        self._replicas = replicas
        self._update = update
        self._buckets = _cut(list(names)[::-1])
        self._ready: set[Tensor] = set()
        self._pending: list[tuple[Tensor, torch.futures.Future[Tensor]]] = []
        self._paused = False
        self._void = 0
        self._rates = rates
        self._sent_at: list[float] = []
        # Untyped in PyTorch.
        self._handles: list[RemovableHandle] = [
            parameter.register_post_accumulate_grad_hook(self._on_gradient)  # type: ignore[no-untyped-call]
            for parameter in names
        ]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing of the gradients that are accumulated inside."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def finish(self) -> dict[str, Tensor] | None:
        """Send what is left, with zeros where no gradient came, and wait: the estimates, None if void.

        Raises:
            RuntimeError: where a learning rate has changed since the first was sent.
        """
        if self._pending and self._rates() != self._sent_at:
            raise RuntimeError(
                f"the learning rates changed from {self._sent_at} to {self._rates()} between the backward "
                "pass and step(), and with overlap=True the old ones are on their way: change them before "
                "the backward pass"
            )
        while len(self._pending) < len(self._buckets):
            self._submit()
        pending, self._pending, self._ready = self._pending, [], set()
        for _, future in pending:
            future.wait()
        # Whether a step stands is counted, not read off the estimates: sums of finite numbers may overflow.
        before, self._void = self._void, self._replicas.stats().skipped
        if self._void > before:
            return None
        estimates: dict[str, Tensor] = {}
        for bucket, (flat, _) in zip(self._buckets, pending, strict=True):
            offset = 0
            for parameter in bucket:
                piece = flat[offset : offset + parameter.numel()]
                estimates[self._names[parameter]] = piece.view(parameter.shape)
                offset += parameter.numel()
        return estimates

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()

    def _on_gradient(self, parameter: Tensor) -> None:
        if self._paused:
            return
        if parameter in self._ready:
            raise RuntimeError(
                f"{self._names[parameter]!r} got a second gradient before step(), and with overlap=True the "
                "first is on its way: put all backward passes but the last into "
                "'with optimizer.accumulate():'"
            )
        self._ready.add(parameter)
        while len(self._pending) < len(self._buckets) and self._ready.issuperset(self._next()):
            self._submit()

    def _next(self) -> list[Tensor]:
        return self._buckets[len(self._pending)]

    @torch.no_grad()
    def _submit(self) -> None:
        if not self._pending:
            self._sent_at = self._rates()
        bucket = self._next()
        flat = torch.cat([self._update(parameter).reshape(-1) for parameter in bucket])
        last = len(self._pending) == len(self._buckets) - 1
        future = self._replicas.submit([self._names[parameter] for parameter in bucket], flat, last=last)
        self._pending.append((flat, future))


def begin_early(
    optimizer: Optimizer,
    names: Mapping[Tensor, str],
    replicas: Replicas,
    sent: Callable[[Tensor, dict[str, Any], float], Tensor],
) -> Early:
    """Watch an optimiser's gradients; ``sent`` makes the update of a parameter and its group.

    Raises:
        ValueError: where a group clips.
    """
    if any(group["clip"] is not None for group in optimizer.param_groups):
        raise ValueError(
            "overlap=True sends before the norm of the whole gradient is known: it needs clip=None"
        )
    number = {p: i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}

    def rates() -> list[float]:
        return [float(group["lr"]) for group in optimizer.param_groups]

    # By number, because load_state_dict makes the groups anew.
    return Early(names, replicas, lambda p: sent(p, optimizer.param_groups[number[p]], 1.0), rates)


def require_plain(optimizer: Optimizer) -> None:
    """Refuse gradients that a GradScaler has scaled: what was sent early was not unscaled.

    Raises:
        RuntimeError: saying what to do.
    """
    if getattr(optimizer, "found_inf", None) is not None:
        raise RuntimeError("overlap=True does not know the scale of a GradScaler: use overlap=False with it")


def _cut(parameters: list[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = [[]]
    for parameter in parameters:
        if sum(p.numel() for p in buckets[-1]) >= BUCKET:
            buckets.append([])
        buckets[-1].append(parameter)
    return buckets
