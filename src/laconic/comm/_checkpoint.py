"""Checkpoints of an exchange: own and gathered states, checks, and conversion of older versions."""

import io
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.comm.topologies import SegmentStates
from laconic.comm.transport.collectives import Collectives
from laconic.layout import Layout

OnMismatch = Literal["error", "resync"]
"""Handling of a state of another method, topology, rank, number of ranks or dtype."""

VERSION = 3
_PIECE_BYTES = 64 * 2**20
_log = logging.getLogger("laconic")


class StateMismatchError(ValueError):
    """A state of another method, topology, rank, number of ranks or dtype, or one that is incomplete."""


def memories_to_load(
    state: Mapping[str, Any],
    identity: Mapping[str, Any],
    rank: int,
    layout: Layout,
    on_mismatch: OnMismatch,
    gather: Callable[[Tensor, str], list[Tensor]],
    misfit: Callable[[SegmentStates], str | None],
) -> SegmentStates:
    """This rank's memories in a saved state, by segment; none of any segment where all ranks start anew.

    With "resync" the ranks tell each other whether their states fit, because memories that are new on some
    ranks only would be wrong: all ranks must call it together. With "error" there is no communication.

    Args:
        state: as an exchange saved it, of one rank or gathered.
        identity: what must be alike in the exchange that loads it.
        rank: whose memories are taken.
        layout: whose segments must all be there.
        on_mismatch: "error", or "resync".
        gather: every rank's numbers.
        misfit: why memories are not those of this rank's dtypes, or None.

    Raises:
        ValueError: naming what differs.
    """
    if on_mismatch not in ("error", "resync"):
        raise ValueError(f'on_mismatch must be "error" or "resync", got {on_mismatch!r}')
    found: SegmentStates = {}
    refusal: ValueError | None = None
    try:
        found = memories_of_rank(state, identity, rank, layout)
        if (why := misfit(found)) is not None:
            raise StateMismatchError(why)
    except ValueError as error:
        if on_mismatch == "error":
            raise
        refusal = error
    if on_mismatch == "error":
        return found
    verdict = 0 if refusal is None else 1 if isinstance(refusal, StateMismatchError) else 2
    verdicts = [
        int(each) for each in gather(torch.tensor([verdict], device="cpu"), "whether the saved states fit")
    ]
    if refusal is not None and verdict == 2:
        raise refusal
    if 2 in verdicts:
        raise ValueError(f"the state that rank {verdicts.index(2)} loads was refused there")
    if 1 not in verdicts:
        return found
    if rank == 0:
        reason = refusal or f"the state of rank {verdicts.index(1)} does not fit"
        _log.warning("all memories start anew: %s", reason)
    return {}


def memories_of_rank(
    state: Mapping[str, Any], identity: Mapping[str, Any], rank: int, layout: Layout
) -> SegmentStates:
    """The memories of a rank in a state of any version.

    Raises:
        StateMismatchError: where another method, topology or number of ranks has saved it, or it lacks some
            of the rank's memories.
        ValueError: where it is of another version or layout.
    """
    saved, whole = _upgraded(state), state.get("version") != 1
    for key, value in identity.items():
        if saved.get(key) != value:
            kind = ValueError if key in ("version", "layout") else StateMismatchError
            raise kind(
                f"the saved exchange has {key} {saved.get(key)!r}, this one has {value!r}: load a state of "
                "the same method, topology, parameters and number of ranks"
                + ("" if kind is ValueError else '; on_mismatch="resync" on all ranks starts new memories')
            )
    ranks = saved.get("ranks", {})
    if str(rank) not in ranks:
        raise StateMismatchError(
            f"the saved exchange has rank {', '.join(ranks) or 'none'}, this one has {rank}: a tool that "
            "keeps one rank's state needs state_dict(gather=True), which all ranks call together; "
            'on_mismatch="resync" on all ranks starts new memories'
        )
    memories: SegmentStates = ranks[str(rank)]
    missing = [segment.name for segment in layout.segments if segment.name not in memories]
    if missing and (whole or not memories):
        raise StateMismatchError(
            f"the saved exchange has no memory of {missing[0]!r} and {len(missing) - 1} others: it was saved "
            "in part, and going on without them would be wrong; load all of it, or start with new memories"
        )
    return memories


def _upgraded(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state of version 1 or 2, which held one rank's memories, as version 3.

    In version 1 a memory was None before its first round; now it is zeros, which None is loaded as. What
    names no topology is of the all-gather, which was the only one.
    """
    if state.get("version") not in (1, 2):
        return {"topology": "all-gather", **state}
    rest = {key: value for key, value in state.items() if key not in ("rank", "segments")}
    ranks = {str(state.get("rank")): state.get("segments", {})}
    return {"topology": "all-gather", **rest, "version": VERSION, "ranks": ranks}


def gather_on_first(own: object, collectives: Collectives) -> dict[str, Any]:
    """On rank 0 what every rank holds, by rank; on the others their own alone. All call it together.

    Args:
        own: numbers, strings and tensors in dicts and lists; tensors of a device are copied to main memory.
        collectives: between the ranks.
    """
    held = _in_main_memory(own)
    file = io.BytesIO()
    torch.save(held, file)
    data = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    what = "the ranks' memories for a checkpoint"
    sizes = [
        int(size)
        for size in collectives.all_gather(torch.tensor([len(data)], device="cpu"), f"the sizes of {what}")
    ]
    arrived: list[list[Tensor]] = [[] for _ in sizes]
    for start in range(0, max(sizes), _PIECE_BYTES):
        mine = data[start : start + _PIECE_BYTES]
        pieces = [mine, *[data[:0]] * (collectives.size - 1)]
        left = [min(max(size - start, 0), _PIECE_BYTES) for size in sizes]
        received = left if collectives.rank == 0 else [0] * collectives.size
        for parts, part in zip(arrived, collectives.all_to_all(pieces, received, what), strict=True):
            parts.append(part)
    if collectives.rank != 0:
        return {str(collectives.rank): own}
    found = {str(rank): _loaded(torch.cat(parts)) for rank, parts in enumerate(arrived) if rank != 0}
    return {"0": held} | found


def _in_main_memory(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_main_memory(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_main_memory(each) for each in value]
    return value.cpu() if isinstance(value, Tensor) else value


def _loaded(data: Tensor) -> Any:
    return torch.load(io.BytesIO(data.numpy().data), map_location="cpu", weights_only=True)
