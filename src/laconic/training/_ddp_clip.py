"""Waiting: of buckets for the last one, since the clip needs the whole norm, and of backward for the step."""

import math

import torch
from torch import Tensor

from laconic.comm import Exchange
from laconic.kernels import squared_norm
from laconic.layout import Layout
from laconic.messages import accumulation_dtype

TensorFuture = torch.futures.Future[Tensor]
Bucket = tuple[tuple[str, ...], Tensor]


def clip_factor(buckets: list[Bucket], layout: Layout, clip: float, scale: float) -> float:
    """What the gradient is multiplied by, so that its norm over all buckets is at most ``clip``.

    The norm is a canonical sum of each parameter's, in the layout's order, so it does not depend on buckets.

    Args:
        buckets: names and numbers of all the model's segments, times ``scale``.
        layout: the model's.
        clip: the longest norm, in unscaled units.
        scale: the loss scale.
    """
    shapes = {segment.name: segment for segment in layout.segments}
    squares: dict[str, Tensor] = {}
    for names, flat in buckets:
        stretches = torch.split(flat, [shapes[name].numel for name in names])
        squares |= {name: squared_norm(part) for name, part in zip(names, stretches, strict=True)}
    length = math.sqrt(sum(float(squares[name]) for name in shapes)) / scale
    # Where the norm is not finite, the gradient has to reach the exchange as it is: there the step is void.
    return min(1.0, clip / length) if length > 0 and math.isfinite(length) else 1.0


def submit_clipped(
    exchange: Exchange,
    held: list[tuple[Bucket, TensorFuture]],
    *,
    clip: float,
    scale: float,
    dense: bool,
) -> TensorFuture:
    """Clip the buckets of a whole step, submit them, and let their futures follow; the last one's."""
    factor = clip_factor([bucket for bucket, _ in held], exchange.layout, clip, scale)
    for number, ((names, flat), future) in enumerate(held):
        source = flat if factor == 1.0 else flat.to(accumulation_dtype(flat.dtype)) * factor
        last = number == len(held) - 1
        inner = exchange.submit(names, source, last=last, out=flat, scale=scale, dense=dense)
        _follow(inner, future)
    return inner


def _follow(inner: TensorFuture, outer: TensorFuture) -> None:
    def done(finished: TensorFuture) -> None:
        try:
            outer.set_result(finished.value())
        except Exception as error:  # it belongs to whoever waits for the outer one
            outer.set_exception(error)  # type: ignore[arg-type]

    inner.add_done_callback(done)


def at_the_end_of_backward(future: TensorFuture) -> None:
    """Wait for the future there, and raise its error as it is; DDP would make "Unable to cast" of it."""

    def wait() -> None:
        future.wait()

    torch.autograd.Variable._execution_engine.queue_callback(wait)
