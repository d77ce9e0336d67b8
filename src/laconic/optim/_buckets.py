"""Buckets of an optimiser's updates, exchanged in one order on every rank, during backward or after it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from laconic.comm import Alike, Destination, Source, TensorFuture, wait_for
from laconic.formats import accumulation_dtype
from laconic.kernels.tables import Integers, SegmentedVector, Vectors
from laconic.optim._gradients import dense
from laconic.session import Session


@dataclass(frozen=True, eq=False)
class ParameterBucket:
    """Parameters whose updates are sent together, of one dtype and device.

    Args:
        parameters: (S,) tensors.
        names: (S,) of the segments.
        groups: int64 (S,), numbers of the optimiser's groups that they belong to.
        numels: int64 (S,), their lengths.
        compiled: whether the loops of :mod:`laconic.kernels.optimizer` take them: on one device, and not
            float16.
    """

    parameters: tuple[Tensor, ...]
    names: tuple[str, ...]
    groups: Integers
    numels: Integers
    compiled: bool

    @classmethod
    def of(cls, parameters: Sequence[Tensor], names: tuple[str, ...], groups: Sequence[int]) -> Self:
        """Parameters with their names and groups."""
        device = parameters[0].device
        compiled = all(p.device == device and p.dtype != torch.float16 for p in parameters)
        numels = np.array([p.numel() for p in parameters], np.int64)
        return cls(tuple(parameters), names, np.array(groups, np.int64), numels, compiled)

    def takes_loops(self) -> bool:
        """Whether loops take all parameters now: none is frozen, and all are contiguous.

        Asked anew in every step: ``model.to(memory_format=torch.channels_last)`` after the optimiser was made
        gives a parameter other strides, and loops would write to a contiguous copy of it.
        """
        # Lists, here and below: a generator would be resumed for every parameter.
        return self.compiled and all([p.requires_grad and p.is_contiguous() for p in self.parameters])  # noqa: C419

    def gradients(self) -> Vectors | None:
        """The gradients where they lie, zeros where there are none; None where loops do not take them.

        Raises:
            TypeError: for a sparse gradient.
        """
        if not self.takes_loops():
            return None
        found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        for gradient in [each for each in found if each.layout != torch.strided]:
            dense(gradient)
        return Vectors.of(found) if len({gradient.dtype for gradient in found}) == 1 else None

    @cached_property
    def room(self) -> Tensor:
        """Room for the updates, (d,) in the accumulation dtype; kept from step to step."""
        like = self.parameters[0]
        return torch.empty(int(self.numels.sum()), dtype=accumulation_dtype(like.dtype), device=like.device)

    @cached_property
    def starts(self) -> Integers:
        """int64 (S,), where each parameter lies in a flat vector."""
        return np.cumsum(self.numels) - self.numels

    def vectors(self, vector: Destination) -> Vectors:
        """A flat vector, or a contiguous tensor for each parameter, for loops."""
        if isinstance(vector, SegmentedVector):
            vector = vector.flattened()
        return Vectors.flat(vector, self.starts) if isinstance(vector, Tensor) else Vectors.of(vector)

    def split(self, vector: Destination) -> list[Tensor]:
        """A flat vector, or a tensor for each parameter, as tensors of the parameters' shapes."""
        if isinstance(vector, SegmentedVector):
            vector = vector.flattened()
        if not isinstance(vector, Tensor):
            return list(vector)
        pieces = torch.split(vector, self.numels.tolist())
        return [piece.view(p.shape) for p, piece in zip(self.parameters, pieces, strict=True)]

    def rows(self, by_group: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
        """Settings of each parameter, float64 (S, n), from those of each group."""
        return np.array(by_group, np.float64)[self.groups]


Update = Callable[[ParameterBucket], Source]


class UpdateBuckets:
    """Submits a step's updates bucket by bucket; when a bucket is submitted changes no value.

    Args:
        session: whose exchange is used.
        numel: numbers a bucket, about.
        group_of: the number of each parameter's group.
        settings: what must be alike on all ranks in a step, by name; asked when its first bucket is sent.
        defers: whether sparse estimates may stay as their summands, which are subtracted without being
            written.
    """

    def __init__(
        self,
        session: Session,
        numel: int,
        group_of: Mapping[Tensor, int],
        settings: Callable[[], Mapping[str, object]],
        defers: bool,
    ) -> None:
        """Cut the parameters into buckets."""
        self._defers = defers
        self._session = session
        self._settings = settings
        self._alike = Alike({})
        self.buckets = [
            ParameterBucket.of(bucket, session.parameters.names(bucket), [group_of[p] for p in bucket])
            for bucket in session.parameters.buckets(numel)
        ]
        self._submitted: list[Destination] = []
        self._computed: set[ParameterBucket] = set()
        self._written: set[ParameterBucket] = set()
        self._end: TensorFuture | None = None
        self._skipped = session.stats().skipped
        self._dense = False

    @property
    def next(self) -> ParameterBucket | None:
        """The bucket that is submitted next; None where all are."""
        number = len(self._submitted)
        return self.buckets[number] if number < len(self.buckets) else None

    @property
    def started(self) -> bool:
        """Whether a bucket of this step has been submitted."""
        return bool(self._submitted)

    @property
    def room_nbytes(self) -> int:
        """Bytes of the buckets' rooms; those that nothing was written to are no memory."""
        return sum(each.room.nbytes for each in self._written if "room" in vars(each))

    def submit_next(self, update: Update) -> None:
        """Begin to exchange the next bucket.

        Args:
            update: from a bucket to what is sent of its parameters: new tensors, or what computes them.
        """
        bucket = self.next
        assert bucket is not None
        if not self.started:
            self._dense = self._session.begin_step()
            self._alike = self._session.agree(self._settings())
        updates = update(bucket)
        if isinstance(updates, SegmentedVector):
            self._computed.add(bucket)
        out: Destination = bucket.room if isinstance(updates, SegmentedVector) else updates
        if self._defers and isinstance(out, Tensor):
            out = SegmentedVector(out, deferred=[])
        self._submitted.append(out)
        last = len(self._submitted) == len(self.buckets)
        self._end = self._session.exchange.submit(
            bucket.names, updates, last=last, out=out, dense=self._dense, alike=self._alike
        )

    def finish(self, update: Update) -> list[Destination] | None:
        """Submit what is left, and wait: each bucket's estimates; None where the step is void.

        Raises:
            laconic.ExchangeError: where another rank died or hangs.
        """
        while self.next is not None:
            self.submit_next(update)
        submitted, self._submitted = self._submitted, []
        assert self._end is not None
        wait_for(self._end)
        for bucket, out in zip(self.buckets, submitted, strict=True):
            deferred = isinstance(out, SegmentedVector) and out.deferred
            if not deferred or bucket not in self._computed:
                self._written.add(bucket)
        # Whether a step stands is counted, not read off the estimates: sums of finite numbers may overflow.
        before, self._skipped = self._skipped, self._session.stats().skipped
        return None if self._skipped > before else submitted


class BackwardOverlap:
    """Submits each bucket as soon as its gradients are there, while backward still runs.

    Args:
        buckets: of the updates.
        session: whose parameters are watched.
        update: what makes a bucket's updates once its gradients are ready; None for a step whose buckets are
            sent after backward.
        settings: those of the groups by name, which updates are sent with.
    """

    def __init__(
        self,
        buckets: UpdateBuckets,
        session: Session,
        update: Callable[[], Update | None],
        settings: Callable[[], Mapping[str, object]],
    ) -> None:
        """Watch the parameters."""
        self._buckets = buckets
        self._name_of = session.parameters.name_of
        self._update = update
        self._settings = settings
        self._ready: set[Tensor] = set()
        self._paused = False
        self._sent_with: Mapping[str, object] = {}
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
        """Check the settings, and forget which gradients were ready.

        Raises:
            RuntimeError: where one has changed since the first bucket was submitted.
        """
        if self._buckets.started:
            for name, now in self._settings().items():
                if now != (before := self._sent_with.get(name)):
                    raise RuntimeError(
                        f"{name} changed from {before} to {now} between the backward pass and step(), and "
                        "with overlap=True updates with the old one are on their way: change it before the "
                        "backward pass"
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
        while (bucket := self._buckets.next) is not None and self._ready.issuperset(bucket.parameters):
            if (update := self._update()) is None:
                return
            if not self._buckets.started:
                self._sent_with = self._settings()
            self._buckets.submit_next(update)
