"""Side streams of the exchange on a GPU, ordered after the stream that made its input."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

TensorFuture = torch.futures.Future[Tensor]


def future_of(tensor: Tensor) -> TensorFuture:
    """A future that may hold the tensor. On a GPU, who waits for it also waits for the side stream."""
    return torch.futures.Future(devices=[tensor.device] if tensor.is_cuda else None)


def wait_for(future: TensorFuture) -> Tensor:
    """As ``future.wait()``, but the main thread hears signals, such as Ctrl-C, while it waits."""
    if not future.done():
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        done.wait()
    return future.wait()


def side_stream_after(source: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """A context to work in, on any thread, that sees what the caller's stream has written to ``source``.

    Call it on the thread and the stream that made ``source``.
    """
    if not source.is_cuda:
        return nullcontext
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record(torch.cuda.current_stream(source.device))

    @contextmanager
    def inside() -> Iterator[None]:
        stream = _side_stream(source.device)
        stream.wait_event(ready)
        # Or the allocator could hand its memory out again while the side stream still reads it.
        source.record_stream(stream)
        with torch.cuda.stream(stream):
            yield

    return inside


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
