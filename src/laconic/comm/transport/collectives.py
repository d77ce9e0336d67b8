"""Collectives on tensors in main memory, with errors that name the collective."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm._stats import Counter
from laconic.comm.errors import ExchangeError
from laconic.comm.transport._arrivals import TAIL_BYTES, Arrivals
from laconic.comm.transport._groups import make_group
from laconic.comm.transport._processes import ended, own_record
from laconic.comm.transport.staging import HostStaging, staging_for

DIRECT_BYTES = 48 * 1024
"""Largest message that goes to every rank directly over Gloo: there hops take the time, not bytes."""
CHANGED = -1
"""The word of a rank that does not take part in the operation that was agreed."""


class WordsDiffer(Exception):  # noqa: N818 - a signal between two layers, which no user meets
    """Not all ranks sent the same word."""


@dataclass(frozen=True)
class CollectiveShape:
    """The lengths of a collective, in bytes.

    Args:
        sent: to each rank; to all alike where it is an all-gather.
        received: from each rank; None for an all-gather.
    """

    sent: tuple[int, ...]
    received: tuple[int, ...] | None = None


class Collectives:
    """The collectives of an exchange, on a process group of its own, or of a single process.

    Its own, because the collectives of two threads on one group may meet in another order on another
    rank. Every process of ``process_group`` has to make it at the same point of its program. Tensors are
    in main memory on both sides.

    Args:
        process_group: the ranks; None is all of them.
        timeout_s: how long to wait for the others, in seconds.
        counter: of bytes and waits.
        staging: by default what suits the backend.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None,
        timeout_s: float,
        counter: Counter,
        staging: HostStaging | None = None,
    ) -> None:
        """Make the group; without ``torch.distributed`` there is a single rank."""
        self._timeout_s = timeout_s
        self._counter = counter
        self._group: dist.ProcessGroup | None = None
        self.rank, self.size = 0, 1
        self._whole = True
        self._word, self._counted = 0, True
        self.first: CollectiveShape | None = None
        if not dist.is_available() or not dist.is_initialized():
            if process_group is not None:
                raise ValueError("torch.distributed is not initialised; call init_process_group first")
            _warn_if_alone()
            return
        self.rank, self.size = dist.get_rank(process_group), dist.get_world_size(process_group)
        if self.rank < 0:
            raise ValueError("this process does not belong to the process group that was passed")
        self._staging = staging or staging_for(process_group, timeout_s)
        self._whole = self.size == dist.get_world_size()
        if self.size > 1:
            # NCCL's own watchdog ends the process; it must not come before the error that says why.
            wait = timeout_s + (60 if self._staging.backend == "nccl" else 0)
            self._group = make_group(process_group, self._staging.backend, timedelta(seconds=wait))
        self._arrivals = Arrivals(self.rank, self.size, counter)
        self._processes: list[Tensor] = []
        if self._group is not None:
            self._counted = False
            self._processes = self.all_gather(own_record(), "the ranks' process numbers")
            self._counted = True

    def begin(self, word: int, *, counted: bool = True) -> None:
        """Send this word in all collectives from now on; :attr:`first` is the shape of the next.

        Where a rank sends another word, these raise :class:`WordsDiffer` on all ranks once they are done.

        Args:
            word: 31 bits, or CHANGED.
            counted: whether their bytes and waits are.
        """
        self._word = word
        self._counted = counted
        self.first = None

    def join(self, shape: CollectiveShape) -> None:
        """Take part in a collective of this shape with zeros and the word CHANGED."""
        self.begin(CHANGED)
        pieces = [torch.zeros(n, dtype=torch.uint8, device="cpu") for n in shape.sent]
        what = "the collective agreed last, to tell that this rank has changed"
        with suppress(WordsDiffer):
            if shape.received is None:
                self.all_gather(pieces[0], what)
            else:
                self.all_to_all(pieces, shape.received, what)

    def all_gather(self, numbers: Tensor, what: str) -> list[Tensor]:
        """Every rank's bytes or numbers, in the order of ranks, where all have as many.

        Args:
            numbers: (n,) on the CPU, contiguous.
            what: what is exchanged, for the error.
        """
        if self._group is None:
            return [numbers]
        self.first = self.first or CollectiveShape((numbers.nbytes,))
        with self._staging.context():
            own = self._staging.to_device(torch.cat([numbers.view(torch.uint8), self._tail()]))
            found = own.new_empty(self.size, own.numel())
            # Gloo's all-gather is a ring, n - 1 messages one after another. The bytes are the same.
            direct = self._staging.backend == "gloo" and self.size > 2 and own.numel() <= DIRECT_BYTES
            repeated = own.repeat(self.size) if direct else own
            with self._collective(f"all_gather of {numbers.nbytes} bytes", what):
                if direct:
                    dist.all_to_all_single(found.view(-1), repeated, group=self._group)
                else:
                    dist.all_gather(list(found.unbind()), own, group=self._group)
                rows = self._staging.to_host(found).unbind()
        return self._received(rows, numbers.dtype, sent=(self.size - 1) * own.numel())

    @property
    def on_device(self) -> bool:
        """Whether collectives work on tensors of a GPU, so that :meth:`all_gather_rows` can be called."""
        return self._group is not None and self._staging.backend == "nccl"

    def all_gather_rows(self, words: Tensor, what: str, look: Callable[[Tensor], Tensor]) -> Tensor:
        """Every rank's words, where all have as many and they lie on the backend's device, and stay there.

        The traffic is that of :meth:`all_gather` of as many bytes.

        Args:
            words: int32 (n,).
            what: what is exchanged, for the error.
            look: from the rows int32 (ranks, n) to what the host is to see of them, int32 (ranks, m).

        Returns:
            What ``look`` returned, in main memory: one wait.
        """
        assert self._group is not None
        self.first = self.first or CollectiveShape((words.nbytes,))
        name = f"all_gather of {words.nbytes} bytes"
        with self._staging.context():
            own = torch.cat([words, self._staging.to_device(self._tail()).view(torch.int32)])
            found = own.new_empty(self.size, own.numel())
            with self._collective(name, what):
                dist.all_gather_into_tensor(
                    found.view(-1).view(torch.uint8), own.view(torch.uint8), group=self._group
                )
            rows, tails = found[:, : -TAIL_BYTES // 4], found[:, -TAIL_BYTES // 4 :]
            both = torch.cat([look(rows), tails], dim=1)
            with self._collective(name, what):
                seen = self._staging.to_host(both)
        self._told(
            seen[:, -TAIL_BYTES // 4 :].tolist(),
            sent=(self.size - 1) * own.nbytes,
            received=(self.size - 1) * own.nbytes,
        )
        return seen[:, : -TAIL_BYTES // 4]

    def all_to_all(self, pieces: Sequence[Tensor], received: Sequence[int], what: str) -> list[Tensor]:
        """What each rank has sent to this one, in the order of ranks.

        Args:
            pieces: what each rank is sent, (n,) on the CPU, contiguous and of one dtype.
            received: how many numbers come from each rank.
            what: what is exchanged, for the error.
        """
        if self._group is None:
            return list(pieces)
        itemsize = pieces[0].element_size()
        out = [itemsize * piece.numel() + TAIL_BYTES for piece in pieces]
        back = [itemsize * count + TAIL_BYTES for count in received]
        self.first = self.first or CollectiveShape(
            tuple([n - TAIL_BYTES for n in out]), tuple([n - TAIL_BYTES for n in back])
        )
        with self._staging.context():
            tails = [self._tail()] * self.size
            both = zip([piece.view(torch.uint8) for piece in pieces], tails, strict=True)
            own = self._staging.to_device(torch.cat(list(chain.from_iterable(both))))
            found = own.new_empty(sum(back))
            with self._collective(f"all_to_all of {sum(out)} bytes", what):
                dist.all_to_all_single(found, own, back, out, group=self._group)
                arrived = self._staging.to_host(found)
            rows = torch.split(arrived, back)
        return self._received(rows, pieces[0].dtype, sent=sum(out) - out[self.rank])

    def all_gather_varied(self, frame: Tensor, what: str) -> list[Tensor]:
        """Every rank's bytes where their numbers differ: a round of 4-byte sizes, then uneven splits."""
        own = torch.tensor([frame.numel()], dtype=torch.int32, device="cpu")
        sizes = [int(size) for size in self.all_gather(own, f"the sizes of {what}")]
        return self.all_to_all([frame] * self.size, sizes, what)

    def mean(self, numbers: Tensor, what: str) -> Tensor:
        """The mean over ranks: every rank adds up a share of the numbers, then all gather the shares.

        This is the traffic of a ring all-reduce, but the order of the sum is that of the ranks everywhere,
        so that it does not depend on where a number lies: ``fl(sum + fl(number / size))``, from 0.

        Args:
            numbers: of any shape, on the CPU.
            what: what is averaged, for the error.
        """
        pieces = numbers.reshape(-1).tensor_split(self.size)
        sizes = [piece.numel() for piece in pieces]
        own = sizes[self.rank]
        share = numbers.new_zeros(max(sizes))
        for piece in self.all_to_all(pieces, [own] * self.size, what):
            share[:own] += piece * (1.0 / self.size)
        shares = self.all_gather(share, what)
        return torch.cat([part[:n] for part, n in zip(shares, sizes, strict=True)]).view(numbers.shape)

    def close(self) -> None:
        """Give the group back."""
        if self._group is not None and self._whole and dist.is_initialized():
            # Unknown after destroy_process_group() of all groups and a new init_process_group().
            with suppress(ValueError):
                dist.destroy_process_group(self._group)
        self._group = None

    def _received(self, rows: Sequence[Tensor], dtype: torch.dtype, sent: int) -> list[Tensor]:
        """The numbers of uint8 rows, once their bytes and what stands behind them are counted."""
        tails = torch.cat([row[-TAIL_BYTES:] for row in rows])
        received = sum(row.numel() for row in rows) - rows[self.rank].numel()
        self._told(tails.view(torch.int32).view(-1, 2).tolist(), sent, received)
        return [row[:-TAIL_BYTES].view(dtype) for row in rows]

    def _told(self, tails: list[list[int]], sent: int, received: int) -> None:
        """Count bytes and waits, given how long each rank had worked and its word."""
        if self._counted:
            self._counter.bytes_sent += sent
            self._counter.bytes_received += received
        self._arrivals.leave([worked for worked, _ in tails], counted=self._counted)
        if any(word != self._word for _, word in tails):
            raise WordsDiffer

    def _tail(self) -> Tensor:
        """uint8 (TAIL_BYTES,) for the other ranks: how long this one has worked, and its word."""
        return self._arrivals.enter(self._word)

    @contextmanager
    def _collective(self, name: str, what: str) -> Iterator[None]:
        """Name the collective in its error. Inside must be nothing that fails by itself on one rank alone."""
        try:
            yield
        except RuntimeError as error:
            raise ExchangeError(
                f"rank {self.rank} waited for {what}, {name}, and it failed (timeout "
                f"{self._timeout_s:g} s): {self._cause()}. Restart from the last checkpoint. The backend "
                f"says: {_first_line(error)}"
            ) from error

    def _cause(self) -> str:
        dead = ended(self._processes)
        if not dead:
            return "another rank died, hangs, or left its step"
        return f"the process of rank {', '.join(map(str, dead))} has ended"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _warn_if_alone() -> None:
    """Every process that torchrun starts would train by itself, and nothing else would say so."""
    if dist.is_available() and dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        warnings.warn(
            "torch.distributed is not initialised, so this process trains alone, although torchrun started "
            f"{os.environ['WORLD_SIZE']}: call torch.distributed.init_process_group first",
            stacklevel=2,
        )
