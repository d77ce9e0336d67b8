"""Buckets of an optimiser's updates, exchanged in one order on every rank, during backward or after it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from laconic.session import Session, TensorFuture


class UpdateBuckets:
    """Submits a step's updates bucket by bucket; when a bucket is submitted changes no value.

    Args:
        session: whose exchange is used.
        numel: numbers a bucket, about.
    """

    def __init__(self, session: Session, numel: int) -> None:
        """Cut the parameters into buckets."""
        self._session = session
        self._buckets = session.parameters.buckets(numel)
        self._names = [session.parameters.names(bucket) for bucket in self._buckets]
        self._submitted: list[list[Tensor]] = []
        self._end: TensorFuture | None = None
        self._skipped = session.stats().skipped

    @property
    def next(self) -> list[Tensor] | None:
        """The parameters whose updates are submitted next; None where all are."""
        number = len(self._submitted)
        return self._buckets[number] if number < len(self._buckets) else None

    @property
    def started(self) -> bool:
        """Whether a bucket of this step has been submitted."""
        return bool(self._submitted)

    def submit_next(self, update: Callable[[Tensor], Tensor]) -> None:
        """Begin to exchange the next bucket.

        Args:
            update: from a parameter to what is sent of it, a new tensor.
        """
        number = len(self._submitted)
        updates = [update(parameter) for parameter in self._buckets[number]]
        last = number == len(self._buckets) - 1
        self._submitted.append(updates)
        self._end = self._session.exchange.submit(self._names[number], updates, last=last)

    def finish(self, update: Callable[[Tensor], Tensor]) -> dict[Tensor, Tensor] | None:
        """Submit what is left, and wait: the estimate for each parameter; None where the step is void.

        Raises:
            laconic.ExchangeError: where another rank died or hangs.
        """
        while self.next is not None:
            self.submit_next(update)
        submitted, self._submitted = self._submitted, []
        assert self._end is not None
        self._end.wait()
        # Whether a step stands is counted, not read off the estimates: sums of finite numbers may overflow.
        before, self._skipped = self._skipped, self._session.stats().skipped
        if self._skipped > before:
            return None
        pairs = zip(self._buckets, submitted, strict=True)
        return {p: estimate for bucket, found in pairs for p, estimate in zip(bucket, found, strict=True)}


class BackwardOverlap:
    """Submits each bucket as soon as its gradients are there, while backward still runs.

    Args:
        buckets: of the updates.
        session: whose parameters are watched.
        update: from a parameter whose gradient is ready to what is sent of it.
        rates: the learning rates that updates are sent with.
    """

    def __init__(
        self,
        buckets: UpdateBuckets,
        session: Session,
        update: Callable[[Tensor], Tensor],
        rates: Callable[[], list[float]],
    ) -> None:
        """Watch the parameters."""
        self._buckets = buckets
        self._name_of = session.parameters.name_of
        self._update = update
        self._rates = rates
        self._ready: set[Tensor] = set()
        self._paused = False
        self._sent_at: list[float] = []
        # Dynamo traces what runs inside a compiled training step, and would specialise on one parameter.
        hook = torch.compiler.disable(self._on_gradient)  # type: ignore[no-untyped-call]
        self._handles: list[RemovableHandle] = [
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            for parameter in self._name_of
        ]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing of the gradients that are accumulated inside."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def end_step(self) -> None:
        """Check the learning rates, and forget which gradients were ready.

        Raises:
            RuntimeError: where a learning rate has changed since the first bucket was submitted.
        """
        if self._buckets.started and self._rates() != self._sent_at:
            raise RuntimeError(
                f"the learning rates changed from {self._sent_at} to {self._rates()} between the backward "
                "pass and step(), and with overlap=True the old ones are on their way: change them before "
                "the backward pass"
            )
        self._ready = set()

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _on_gradient(self, parameter: Tensor) -> None:
        if self._paused:
            return
        if parameter in self._ready:
            raise RuntimeError(
                f"{self._name_of[parameter]!r} got a second gradient before step(), and with overlap=True "
                "the first is on its way: put all backward passes but the last into "
                "'with optimizer.accumulate():'"
            )
        self._ready.add(parameter)
        while (bucket := self._buckets.next) is not None and self._ready.issuperset(bucket):
            if not self._buckets.started:
                self._sent_at = self._rates()
            self._buckets.submit_next(self._update)
