"""States of senders and receivers, cut by segment and joined."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from laconic.comm.topologies._protocol import SegmentStates
from laconic.feedback import Receiver, Sender
from laconic.formats import accumulation_dtype
from laconic.layout import Layout, Segment

State = dict[str, Any]
Ends = Mapping[str, Sender | Receiver]
"""Senders and receivers by name; their tensors have the layout's coordinates as their last dimension."""


def cut_by_segment(layout: Layout, ends: Ends) -> SegmentStates:
    """What the ends remember of each segment of their layout, by the segment's and the end's name."""
    states = {end: holder.state_dict() for end, holder in ends.items()}
    return {
        segment.name: {end: _cut(state, segment) for end, state in states.items()}
        for segment in layout.segments
    }


def held_bytes(holders: Iterable[Any]) -> dict[str, int]:
    """Bytes of memories ("memory"), and of the buffers beside them ("scratch"), of those that say so."""
    held = {"memory": 0, "scratch": 0}
    for holder in holders:
        for kind, size in holder.held_bytes().items() if hasattr(holder, "held_bytes") else ():
            held[kind] += size
    return held


def load_by_segment(layout: Layout, ends: Ends, states: Mapping[str, dict[str, Any]]) -> None:
    """Let the ends take over what was cut by segment.

    Raises:
        ValueError: where segments are of different rounds, or do not fit.
    """
    for end, holder in ends.items():
        holder.load_state_dict(_joined([states[segment.name][end] for segment in layout.segments], layout))


def dtype_misfit(states: Mapping[str, Mapping[str, Any]], dtypes: Mapping[str, torch.dtype]) -> str | None:
    """Why memories that were cut by segment cannot be those of vectors of these dtypes; None where they can.

    Args:
        states: by segment, then by end. What has had no round yet fits any dtype.
        dtypes: of the segments' vectors, by name; those without one are not compared.
    """
    for name, ends in states.items():
        if name not in dtypes:
            continue
        own = accumulation_dtype(dtypes[name])
        for state in ends.values():
            held = [v.dtype for v in state.values() if isinstance(v, Tensor) and v.is_floating_point()]
            saved = next((wide for wide in map(accumulation_dtype, held) if wide != own), None)
            if saved is not None and state.get("round"):
                return (
                    f"the saved memories of {name!r} are of {_name(saved)}, but this model's gradients "
                    f"accumulate in {_name(own)}: load them into a model of the same dtype, or with "
                    'on_mismatch="resync" on all ranks, which starts new memories'
                )
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _cut(state: State, segment: Segment) -> State:
    return {
        key: value[..., segment.offset : segment.end].clone() if isinstance(value, Tensor) else value
        for key, value in state.items()
        if key != "layout"
    }


def _joined(states: list[State], layout: Layout) -> State:
    joined: State = {"layout": layout.digest}
    for key, first in states[0].items():
        values = [state[key] for state in states]
        if isinstance(first, Tensor):
            joined[key] = torch.cat(values, dim=-1)
        elif any(value != first for value in values):
            raise ValueError(
                f"the segments of {layout.segments[0].name!r} and others are at different {key}s "
                f"({sorted(set(map(str, values)))}); resync() starts them anew"
            )
        else:
            joined[key] = first
    return joined
