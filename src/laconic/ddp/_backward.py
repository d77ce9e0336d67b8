"""Backward passes of the DDP hook: from buckets of gradients to buckets of estimates."""

from typing import Protocol

import torch.distributed as dist
from torch.optim import Optimizer

from laconic.comm import Alike, TensorFuture, future_of, wait_for
from laconic.ddp._clip import HeldBucket, follow, submit_clipped, wait_at_end_of_backward
from laconic.ddp._model import DDPModel, gradients_in
from laconic.ddp._unwritten import UnwrittenEstimates
from laconic.ddp._watch import HookCalls, UnusedGradients
from laconic.session import Session, group_settings


class Scaler(Protocol):
    """What is asked of a ``GradScaler``."""

    def get_scale(self) -> float:
        """The factor on the loss."""


class BackwardPass:
    """The buckets of one backward pass after another.

    Args:
        model: whose gradients they are.
        session: that exchanges them.
        calls: told that the hook is called.
        unwritten: told of the buckets, and when their estimates are there.
        clip, scaler, optimizer: as for :class:`laconic.ddp.CommState`.
        unused: told of the passes; None without an optimiser.
    """

    def __init__(
        self,
        model: DDPModel,
        session: Session,
        calls: HookCalls,
        unwritten: UnwrittenEstimates,
        *,
        clip: float | None,
        scaler: Scaler | None,
        optimizer: Optimizer | None,
        unused: UnusedGradients | None,
    ) -> None:
        """Wait for the first bucket."""
        self._model, self._session, self._calls, self._unwritten = model, session, calls, unwritten
        self._clip, self._scaler, self._optimizer, self._unused = clip, scaler, optimizer, unused
        self._sent: list[str] = []
        self._ended = True
        self._held: list[HeldBucket] = []
        self._contiguous: dict[tuple[str, ...], bool] = {}
        self._dense, self._scale, self._paused = False, 1.0, False
        self._alike = Alike({})

    def reduce(
        self,
        bucket: dist.GradBucket,  # type: ignore[name-defined]
        paused: bool,
    ) -> TensorFuture:
        """Begin to exchange a bucket; ``paused`` counts at the first of a pass."""
        if bucket.index() == 0:
            self._begin(paused)
        parameters = [p for p in bucket.parameters() if p.numel() > 0]
        names, flat = self._session.parameters.names(parameters), bucket.buffer()
        self._sent.extend(names)
        # Not DDP's last one, which may hold no number: DDP makes a bucket of its own for each dtype.
        last = len(self._sent) == len(self._session.parameters.by_name)
        if bucket.is_last() and not (last or self._ended):
            self._model.require_all(self._sent)
        if not names:
            future = future_of(flat)
            future.set_result(flat)
            return future
        # Memories are in logical order: gradients that are not, as of channels_last weights, go one by one.
        plain = self._contiguous.get(names)
        if plain is None:
            plain = self._contiguous[names] = all(p.is_contiguous() for p in parameters)
        vector = flat if plain else gradients_in(flat, parameters)
        self._unwritten.add(parameters, flat)
        if last:
            self._sent, self._ended = [], True
            # Before the last bucket is submitted: the step may end at once.
            before = self._session.stats().steps
        exchange = self._session.exchange
        if self._clip is None or self._paused:
            end = exchange.submit(
                names, vector, last=last, scale=self._scale, dense=self._dense, alike=self._alike
            )
            future = end if plain else follow(end, future_of(flat), flat)
        else:
            future = future_of(flat)
            self._held.append(HeldBucket(names, vector, flat, future))
            if last:
                held, self._held = self._held, []
                end = submit_clipped(
                    exchange,
                    held,
                    clip=self._clip,
                    scale=self._scale,
                    dense=self._dense,
                    alike=self._alike,
                )
        if last:
            wait_at_end_of_backward(lambda: self._end(end, before))
        return future

    def _begin(self, paused: bool) -> None:
        self._model.refuse_join()
        self._model.parameters.refuse_unfrozen()
        self._calls.called = True
        if self._sent:
            raise RuntimeError(
                "the last backward pass ended in the middle of a step, so the ranks are out of step: restart "
                "from the last checkpoint"
            )
        self._session.check_replicas_in_turn()
        self._paused = paused
        if not paused and self._unused is not None:
            self._unused.backward_begins()
        self._dense = paused or self._session.begin_step()
        self._scale = 1.0 if self._scaler is None else float(self._scaler.get_scale())
        groups = [] if self._optimizer is None else self._optimizer.param_groups
        self._alike = self._session.agree({"loss scale": self._scale, **group_settings(groups)})
        self._unwritten.begin()
        self._ended = False

    def _end(self, end: TensorFuture, before: int) -> None:
        try:
            wait_for(end)
        except BaseException as error:
            self._model.raise_from_now_on(error)
            raise
        committed = self._session.stats().steps - before
        self._unwritten.end(committed > 0 and not self._paused and not self._dense)
        if self._paused:
            self._session.leave_out(committed)
        elif self._unused is not None:
            self._unused.backward_ends(committed > 0)
