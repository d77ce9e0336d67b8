"""Gradient clipping in the DDP hook: buckets are held until the global norm is known."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.comm import Alike, Exchange, TensorFuture, Vector
from laconic.formats import accumulation_dtype
from laconic.kernels.tables import SegmentedVector
from laconic.session import clip_factor, global_norm, squared_norms_of


@dataclass(frozen=True)
class HeldBucket:
    """A bucket that waits for the norm.

    Args:
        names: of its segments.
        vector: their gradients, times the loss scale.
        buffer: DDP's, which the future's value is.
        future: what DDP waits for.
    """

    names: tuple[str, ...]
    vector: Vector
    buffer: Tensor
    future: TensorFuture


def submit_clipped(
    exchange: Exchange, held: list[HeldBucket], *, clip: float, scale: float, dense: bool, alike: Alike
) -> TensorFuture:
    """Clip the buckets of a whole step, submit them, and let their futures follow; the last one's."""
    factor = clip_factor(global_norm(_squares(exchange, held), scale), clip)
    for number, bucket in enumerate(held):
        source = bucket.vector
        if factor != 1.0:
            numbers = SegmentedVector.of(source).flattened()
            source = numbers.to(accumulation_dtype(numbers.dtype)) * factor
        last = number == len(held) - 1
        end = exchange.submit(
            bucket.names, source, last=last, out=bucket.vector, scale=scale, dense=dense, alike=alike
        )
        follow(end, bucket.future, bucket.buffer)
    return end


def _squares(exchange: Exchange, held: list[HeldBucket]) -> list[float]:
    squares: dict[str, float] = {}
    for bucket in held:
        numels = tuple(segment.numel for segment in exchange.layout.select(bucket.names).segments)
        squares |= zip(bucket.names, squared_norms_of(bucket.vector, numels), strict=True)
    return [squares[segment.name] for segment in exchange.layout.segments]


def follow(inner: TensorFuture, outer: TensorFuture, value: Tensor) -> TensorFuture:
    """Complete the outer future with a value when the inner one is complete; returns it."""

    def done(finished: TensorFuture) -> None:
        try:
            finished.value()
            outer.set_result(value)
        except Exception as error:  # it belongs to whoever waits for the outer one
            outer.set_exception(error)  # type: ignore[arg-type]

    inner.add_done_callback(done)
    return outer


def wait_at_end_of_backward(wait: Callable[[], None]) -> None:
    """Wait there, and raise the error as it is; DDP would make "Unable to cast" of it."""
    torch.autograd.Variable._execution_engine.queue_callback(wait)
