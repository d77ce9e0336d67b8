"""Collectives on bytes, with errors that say who waited for what."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm._carrier import Carrier, carrier_for
from laconic.comm._errors import ExchangeError


class Group:
    """A process group of the exchange's own, or a single process.

    Its own, because the collectives of two threads on one group may meet in another order on another
    rank. Every process of ``process_group`` has to make it at the same point of its program. Tensors are
    in main memory on both sides; a :class:`~laconic.comm._carrier.Carrier` takes them to the backend.
    """

    def __init__(
        self, process_group: dist.ProcessGroup | None, timeout_s: float, carrier: Carrier | None = None
    ) -> None:
        """Make the group; without ``torch.distributed`` there is a single rank."""
        self._timeout_s = timeout_s
        self._group: dist.ProcessGroup | None = None
        self.rank, self.size = 0, 1
        self._whole = True
        if not dist.is_available() or not dist.is_initialized():
            if process_group is not None:
                raise ValueError("torch.distributed is not initialised; call init_process_group first")
            return
        self.rank, self.size = dist.get_rank(process_group), dist.get_world_size(process_group)
        if self.rank < 0:
            raise ValueError("this process does not belong to the process group that was passed")
        self._carrier = carrier or carrier_for(process_group, timeout_s)
        self._whole = self.size == dist.get_world_size()
        if self.size > 1:
            # A group of some ranks only must be made without the others. Its name is then a hash of its
            # ranks, so it is never destroyed: a second one of that name would find the first's addresses.
            self._group = dist.new_group(
                None if self._whole else dist.get_process_group_ranks(process_group),
                # NCCL's own watchdog ends the process; it must not come before the error that says why.
                timeout=timedelta(seconds=timeout_s + (60 if self._carrier.backend == "nccl" else 0)),
                backend=self._carrier.backend,
                use_local_synchronization=not self._whole,
            )

    def all_gather(self, frame: Tensor, what: str) -> list[Tensor]:
        """Every rank's bytes or numbers, in the order of ranks, where all have as many.

        Args:
            frame: (n,) on the CPU.
            what: what is exchanged, for the error.
        """
        if self._group is None:
            return [frame]
        with self._waiting(f"all_gather of {frame.nbytes} bytes", what):
            return self._gathered(frame)

    def _gathered(self, frame: Tensor) -> list[Tensor]:
        own = self._carrier.there(frame)
        frames = own.new_empty(self.size, *own.shape)
        dist.all_gather(list(frames.unbind()), own, group=self._group)
        return list(self._carrier.home(frames).unbind())

    def _exchanged(self, numbers: Tensor, received: list[int], sent: list[int]) -> Tensor:
        own = self._carrier.there(numbers)
        out = own.new_empty(sum(received))
        dist.all_to_all_single(out, own, received, sent, group=self._group)
        return self._carrier.home(out)

    def all_gather_varied(self, frame: Tensor, what: str) -> list[Tensor]:
        """Every rank's bytes where their numbers differ: a round of 4-byte sizes, then uneven splits."""
        if self._group is None:
            return [frame]
        own = torch.tensor([frame.numel()], dtype=torch.int32)
        with self._waiting("all_gather of sizes", what):
            sizes = [int(number) for number in self._gathered(own)]
        with self._waiting(f"all_to_all of {sum(sizes)} bytes", what):
            received = self._exchanged(frame.repeat(self.size), sizes, [frame.numel()] * self.size)
        return list(torch.split(received, sizes))

    def mean(self, numbers: Tensor, what: str) -> Tensor:
        """The mean over ranks: every rank adds up a share of the numbers, and all hear of it.

        This is the traffic of a ring all-reduce, but the order of the sum is that of the ranks everywhere,
        so that it does not depend on where a number lies: ``fl(sum + fl(number / size))``, from 0.

        Args:
            numbers: (d,) on the CPU.
            what: what is averaged, for the error.
        """
        sizes = [part.numel() for part in numbers.tensor_split(self.size)]
        own = sizes[self.rank]
        received = numbers
        if self._group is not None:
            with self._waiting(f"all_to_all of {numbers.numel()} numbers", what):
                received = self._exchanged(numbers.contiguous(), [own] * self.size, sizes)
        share = numbers.new_zeros(max(sizes))
        for rank in range(self.size):
            share[:own] += received[rank * own : (rank + 1) * own] * (1.0 / self.size)
        shares = self.all_gather(share, what)
        return torch.cat([part[:size] for part, size in zip(shares, sizes, strict=True)])

    def sum_(self, numbers: Tensor, what: str) -> None:
        """Replace the numbers by their sum over ranks, the same bits on every rank."""
        if self._group is not None:
            with self._waiting(f"all_reduce of {numbers.numel()} numbers", what):
                there = self._carrier.there(numbers)
                dist.all_reduce(there, group=self._group)
                numbers.copy_(self._carrier.home(there))

    def close(self) -> None:
        """Give the group back."""
        if self._group is not None and self._whole and dist.is_initialized():
            dist.destroy_process_group(self._group)
        self._group = None

    @contextmanager
    def _waiting(self, collective: str, what: str) -> Iterator[None]:
        try:
            with self._carrier.working():
                yield
        except RuntimeError as error:
            raise ExchangeError(
                f"rank {self.rank} waited for {what}, {collective}, and it failed (timeout "
                f"{self._timeout_s:g} s): another rank died, hangs, or left its step. Restart from the last "
                f"checkpoint. The backend says: {_first_line(error)}"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
