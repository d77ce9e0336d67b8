"""Staging of tensors between main memory and where a backend's collectives work: a GPU, on NCCL."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class HostStaging(Protocol):
    """Copies tensors from main memory to where a backend's collectives work, and back."""

    @property
    def backend(self) -> str:
        """The backend's name."""

    def context(self) -> AbstractContextManager[object]:
        """A context to make collectives in, on any thread."""

    def to_device(self, host: Tensor) -> Tensor:
        """The tensor where collectives work."""

    def to_host(self, tensor: Tensor) -> Tensor:
        """The tensor in main memory, once the collective that fills it is done.

        Raises:
            RuntimeError: where that takes too long.
        """


class NoStaging:
    """Gloo: tensors stay where they are."""

    backend = "gloo"

    def context(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def to_device(self, host: Tensor) -> Tensor:
        """The tensor itself."""
        return host

    def to_host(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


class PinnedStaging:
    """NCCL: tensors cross to a GPU and back through page-locked memory, on the current stream.

    Args:
        device: this process's GPU.
        timeout_s: how long :meth:`to_host` waits, in seconds.
    """

    backend = "nccl"

    def __init__(self, device: torch.device, timeout_s: float) -> None:
        """Remember where and how long."""
        self._device = device
        self._timeout_s = timeout_s

    def context(self) -> AbstractContextManager[object]:
        """A thread starts on the first GPU, whichever the process uses."""
        return torch.cuda.device(self._device)

    def to_device(self, host: Tensor) -> Tensor:
        """A copy on the GPU; what follows on the stream waits for it."""
        return host.pin_memory().to(self._device, non_blocking=True)

    def to_host(self, tensor: Tensor) -> Tensor:
        """A copy in main memory.

        The event is asked again and again instead of waited for, since a collective whose other ranks have
        died never ends.
        """
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True, device="cpu")
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        deadline = time.monotonic() + self._timeout_s
        while not done.query():  # type: ignore[no-untyped-call]
            if time.monotonic() > deadline:
                raise RuntimeError("timed out")
            time.sleep(2e-5)
        return host


def staging_for(process_group: dist.ProcessGroup | None, timeout_s: float) -> HostStaging:
    """For NCCL where the ranks' own group speaks that and nothing else, for Gloo else."""
    if dist.get_backend(process_group) == "nccl" and torch.cuda.is_available():
        return PinnedStaging(torch.device("cuda", torch.cuda.current_device()), timeout_s)
    return NoStaging()
