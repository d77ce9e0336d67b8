"""Estimates that DDP does not write: those of parameters that no rank used in a backward pass."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from laconic.ddp._clip import wait_at_end_of_backward
from laconic.ddp._model import DDPModel, gradients_in


class UnwrittenEstimates:
    """Writes the estimate to the gradients that DDP leaves as they are, because no rank used the parameter.

    The memories of such a parameter have sent a part of what waited in them, which would be lost. Where the
    estimate is zero throughout, a gradient that is None stays None: the optimiser skips the parameter.

    Args:
        model: whose parameters they are.
    """

    def __init__(self, model: DDPModel) -> None:
        """Watch which parameters this rank uses, where DDP's gradients are copies of its buckets."""
        self._model = model
        self._buckets: list[tuple[Sequence[Tensor], Tensor]] = []
        self._used: set[Tensor] = set()
        # The hooks hold the set alone: nothing that refers to the parameters stays in it between passes.
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._used.add)  # type: ignore[no-untyped-call]
            for parameter in (model.parameters.by_name.values() if model.copies_gradients else ())
            if model.leaves_unused
        ]

    def begin(self) -> None:
        """A backward pass begins."""
        self._buckets = []

    def add(self, parameters: Sequence[Tensor], buffer: Tensor) -> None:
        """A bucket of the pass, whose buffer will hold the estimate."""
        if self._model.leaves_unused:
            self._buckets.append((parameters, buffer))

    def end(self, compressed: bool) -> None:
        """The exchange has ended; call it in a callback of autograd's engine.

        Args:
            compressed: whether memories have changed, so that there are estimates to write.
        """
        buckets, self._buckets = self._buckets, []
        used = frozenset(self._used)
        self._used.clear()
        if compressed and buckets:
            # DDP writes gradients in a callback, too, which is queued by now: this one comes after it.
            wait_at_end_of_backward(partial(_write_untraced, buckets, used, bool(self._handles)))

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()


def _write(buckets: Sequence[tuple[Sequence[Tensor], Tensor]], used: frozenset[Tensor], copied: bool) -> None:
    new = []
    for parameters, buffer in buckets:
        # DDP has written those that another rank used: the same numbers again do no harm.
        left = {p for p in parameters if p.requires_grad and (p.grad is None or (copied and p not in used))}
        if not left:
            continue
        for parameter, estimate in zip(parameters, gradients_in(buffer, parameters), strict=True):
            if parameter not in left:
                continue
            if parameter.grad is None:
                new.append((parameter, estimate, estimate.any()))
            else:
                parameter.grad.copy_(estimate)
    for parameter, estimate, some in new:
        if some:
            parameter.grad = estimate.clone()


# Dynamo traces what runs inside a compiled training step.
_write_untraced = torch.compiler.disable(torch.no_grad()(_write))  # type: ignore[no-untyped-call]
