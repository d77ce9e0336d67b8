"""Checkpoints of an exchange: checks, and conversion of those that older versions saved."""

from collections.abc import Mapping
from typing import Any

from laconic.comm.topologies import SegmentStates


def checked_segments(state: Mapping[str, Any], own: Mapping[str, Any]) -> SegmentStates:
    """The memories by segment of a saved exchange.

    In version 1 a memory was None before its first round; now it is zeros, which None is loaded as. All other
    fields mean the same. A state that names no topology is of the all-gather, which was the only one.

    Args:
        state: as it was saved.
        own: what must be alike in the exchange that loads it.

    Raises:
        ValueError: naming what differs.
    """
    state = {"topology": "all-gather", **state}
    if state.get("version") == 1:
        state["version"] = 2
    for key, value in own.items():
        if state.get(key) != value:
            raise ValueError(
                f"the saved exchange has {key} {state.get(key)!r}, this one has {value!r}: load each rank's "
                "own state, with the same method, topology, parameters and number of ranks"
            )
    segments: SegmentStates = state["segments"]
    return segments
