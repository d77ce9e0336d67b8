"""Gradient clipping in the DDP hook: buckets are held until the norm over all of them is known."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from laconic.comm import Exchange, Vector
from laconic.formats import accumulation_dtype
from laconic.kernels import SegmentedInput, squared_norm, squared_norms
from laconic.kernels.tables import SegmentedVector, SegmentTable
from laconic.layout import Layout

TensorFuture = torch.futures.Future[Tensor]
Bucket = tuple[tuple[str, ...], Vector]
"""Names of segments, and their numbers."""
Held = tuple[Bucket, Tensor, TensorFuture]
"""A bucket that waits for the norm, DDP's buffer of it, and the future that DDP waits for."""


def clip_factor(buckets: list[Bucket], layout: Layout, clip: float, scale: float) -> float:
    """What the gradient is multiplied by, so that its norm over all buckets is at most ``clip``.

    The norm is a canonical sum of each parameter's, in the layout's order, so it does not depend on buckets.

    Args:
        buckets: names and numbers of all the model's segments, times ``scale``.
        layout: the model's.
        clip: the longest norm, in unscaled units.
        scale: the loss scale.
    """
    squares: dict[str, float] = {}
    for names, vector in buckets:
        squares |= zip(names, _squares(SegmentedVector.of(vector), bucket_table(layout, names)), strict=True)
    length = math.sqrt(sum(squares[segment.name] for segment in layout.segments)) / scale
    # Where the norm is not finite, the gradient has to reach the exchange as it is: there the step is void.
    return min(1.0, clip / length) if length > 0 and math.isfinite(length) else 1.0


@lru_cache(maxsize=64)
def bucket_table(layout: Layout, names: tuple[str, ...]) -> SegmentTable:
    """Where the segments of a bucket lie in its flat vector."""
    segments = layout.select(names).segments
    numels = tuple(segment.numel for segment in segments)
    return SegmentTable(
        tuple(segment.offset for segment in segments), numels, numels, tuple(s.number for s in segments)
    )


def _squares(vector: SegmentedVector, table: SegmentTable) -> list[float]:
    """The squared norm of each segment."""
    vectors = vector.vectors(range(len(table.numels)), table)
    if vectors is not None:
        found: list[float] = squared_norms(SegmentedInput.of(vectors, table)).tolist()
        return found
    parts = enumerate(zip(table.starts, table.numels, strict=True))
    return [float(squared_norm(vector.segment(place, start, numel))) for place, (start, numel) in parts]


def submit_clipped(
    exchange: Exchange, held: list[Held], *, clip: float, scale: float, dense: bool
) -> TensorFuture:
    """Clip the buckets of a whole step, submit them, and let their futures follow; the last one's."""
    factor = clip_factor([bucket for bucket, _, _ in held], exchange.layout, clip, scale)
    for number, ((names, vector), flat, future) in enumerate(held):
        source = vector
        if factor != 1.0:
            numbers = SegmentedVector.of(vector).flattened()
            source = numbers.to(accumulation_dtype(numbers.dtype)) * factor
        last = number == len(held) - 1
        inner = exchange.submit(names, source, last=last, out=vector, scale=scale, dense=dense)
        follow(inner, future, flat)
    return inner


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


def at_the_end_of_backward(future: TensorFuture) -> None:
    """Wait for the future there, and raise its error as it is; DDP would make "Unable to cast" of it."""

    def wait() -> None:
        future.wait()

    torch.autograd.Variable._execution_engine.queue_callback(wait)
