"""Agreement of the ranks on settings, sizes of collectives, and what multiplies an estimate on each rank.

Each rank knows by itself how long its next collective is, so a rank whose settings or memories are others
would join one of another length, which ends the process on Gloo and hangs on NCCL. Therefore:

- Operations (a bucket of a step, a comparison of replicas) that all ranks have done before have an agreed
  first collective. A rank joins it at that length, whatever has become of its own settings.
- Behind every rank's numbers stands a word of 31 bits: a digest of the settings that must be alike in this
  step, or CHANGED by a rank that is about to do something else than agreed. Where not all words are equal,
  every rank drops what it received, and all compare a record of what they are about to do; where the records
  are equal, the operation is done again, and that is agreed from then on.
- An operation that is not agreed yet starts with that comparison: eight bytes a rank.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from laconic.comm.errors import RanksDifferError
from laconic.comm.transport.collectives import Collectives, CollectiveShape, WordsDiffer

T = TypeVar("T")
Fields = Mapping[str, object]
"""Settings by name, in words."""


@dataclass(frozen=True)
class Alike:
    """Settings that must be alike on all ranks in a step, such as learning rates.

    Args:
        fields: by name; compared by what ``repr`` says of them.
    """

    fields: Fields

    @cached_property
    def word(self) -> int:
        """A digest of 31 bits that is not CHANGED."""
        return zlib.crc32(_record(self.fields)) & 0x7FFFFFFF


NOTHING = Alike({})


@dataclass(frozen=True)
class Operation:
    """What a rank is about to do.

    Args:
        key: equal on two ranks, or at two times, only where the collectives are.
        steady: whether doing it again has collectives of the same lengths.
        fields: what the ranks compare before they do it for the first time.
    """

    key: object
    steady: bool
    fields: Callable[[], Fields]


class Agreement:
    """What the ranks have agreed to do, by place in a step.

    Args:
        collectives: between the ranks.
    """

    def __init__(self, collectives: Collectives) -> None:
        """Nothing is agreed yet."""
        self._collectives = collectives
        self._agreed: list[tuple[object, CollectiveShape] | None] = []
        self._place = 0
        self._changed = False

    def change(self) -> None:
        """This rank's settings or memories were replaced: what was agreed does not hold for it."""
        self._changed = True

    def end_step(self) -> None:
        """The next operation is the first of a step."""
        self._place = 0

    def run(self, operation: Operation, alike: Alike, action: Callable[[], T], undo: Callable[[], None]) -> T:
        """Do an operation of a step, once all ranks are known to do the same.

        Args:
            operation: what it is.
            alike: settings of this step.
            action: the operation; its first collective tells whether all ranks take part in it.
            undo: makes nothing of an action whose first collective has failed to.

        Raises:
            RanksDifferError: naming the ranks and the setting.
        """
        if self._collectives.size == 1:
            return action()
        place, self._place = self._place, self._place + 1
        agreed = self._agreed[place] if place < len(self._agreed) else None
        if agreed is not None and (self._changed or agreed[0] != operation.key):
            self._collectives.join(agreed[1])
            agreed = None
        elif agreed is not None:
            try:
                return self._acted(place, operation, alike, action)
            except WordsDiffer:
                undo()
        self._agreed[place:] = []
        self.compare({**operation.fields(), **alike.fields})
        self._changed = False
        return self._acted(place, operation, alike, action)

    def _acted(self, place: int, operation: Operation, alike: Alike, action: Callable[[], T]) -> T:
        self._collectives.begin(alike.word)
        found = action()
        shape = self._collectives.first
        self._agreed[place : place + 1] = [(operation.key, shape) if operation.steady and shape else None]
        return found

    def call(self, what: str, action: Callable[[], T]) -> T:
        """Do something between steps, such as a comparison of replicas, once all ranks do the same."""
        agreed = self._agreed[self._place] if self._place < len(self._agreed) else None
        if agreed is not None:
            self._collectives.join(agreed[1])
        self.compare({"operation": what})
        self._collectives.begin(0)
        return action()

    def compare(self, fields: Fields) -> None:
        """Compare settings in words: eight bytes a rank, and the words themselves only where they differ.

        Raises:
            RanksDifferError: naming the ranks and the first setting that differs.
        """
        if self._collectives.size == 1:
            return
        words = _record(fields)
        digest = int.from_bytes(hashlib.sha256(words).digest()[:7], "little")
        what = f"a comparison of settings before the {fields.get('operation', 'step')}"
        if len({int(n) for n in self._gather(torch.tensor([digest], device="cpu"), what)}) == 1:
            return
        sizes = [int(n) for n in self._gather(torch.tensor([len(words)], device="cpu"), what)]
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device="cpu")
        padded[: len(words)] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
        found = self._gather(padded, what)
        raise RanksDifferError(
            _difference([json.loads(bytes(row[:n].tolist())) for row, n in zip(found, sizes, strict=True)])
        )

    def _gather(self, numbers: Tensor, what: str) -> list[Tensor]:
        self._collectives.begin(0, counted=False)
        return self._collectives.all_gather(numbers, what)


def _record(fields: Fields) -> bytes:
    return json.dumps({name: _words(value) for name, value in fields.items()}).encode()


def _words(value: object) -> str:
    # Addresses of objects differ by process.
    return re.sub(r" at 0x[0-9a-f]+", "", value if isinstance(value, str) else repr(value))


def _difference(by_rank: list[dict[str, str]]) -> str:
    """The first setting that differs, with its values by rank.

    Example:
        >>> _difference([{"seed": "1"}, {"seed": "1"}, {"seed": "2"}]).split(".")[0]
        'the ranks differ in seed: 2 on rank 2, 1 on ranks 0, 1'
    """
    names = dict.fromkeys(name for own in by_rank for name in own)
    name = next(name for name in names if len({own.get(name) for own in by_rank}) > 1)
    ranks: dict[str | None, list[int]] = {}
    for rank, own in enumerate(by_rank):
        ranks.setdefault(own.get(name), []).append(rank)
    rarest_first = sorted(ranks.items(), key=lambda item: (len(item[1]), -item[1][0]))
    return (
        f"the ranks differ in {name}: "
        + ", ".join(
            f"{'nothing' if value is None else _short(value)} on rank{'s' if len(who) > 1 else ''} "
            + ", ".join(map(str, who))
            for value, who in rarest_first
        )
        + ". Nothing of this step was committed. All ranks need the same settings, and have to call step, "
        "load_state_dict, resync and the like together"
    )


def _short(value: str) -> str:
    return value if len(value) <= 300 else value[:300] + "..."


def crc32_of(tensor: Tensor, start: int = 0) -> int:
    """The CRC-32 of a tensor's bits in the logical order of its elements, continued from ``start``."""
    flat = tensor.detach().to("cpu", memory_format=torch.contiguous_format).reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data, start)


def checksum(state: Mapping[str, object]) -> str:
    """A checksum of tensors and the words of everything else, by name."""
    found = 0
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            found = crc32_of(value, found)
        else:
            found = zlib.crc32(f"{name}={value!r}".encode(), found)
    return f"checksum {found:#010x}"
