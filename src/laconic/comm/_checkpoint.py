"""Checkpoints of an exchange: checks, and conversion of those that older versions saved."""

from collections.abc import Mapping
from typing import Any

from laconic.comm.topologies import SegmentStates
from laconic.layout import Layout


def checked_segments(state: Mapping[str, Any], own: Mapping[str, Any], layout: Layout) -> SegmentStates:
    """The memories by segment of a saved exchange.

    In version 1 a memory was None before its first round; now it is zeros, which None is loaded as. All other
    fields mean the same. A state that names no topology is of the all-gather, which was the only one.

    Args:
        state: as it was saved.
        own: what must be alike in the exchange that loads it.
        layout: whose segments must all be there; in version 1 those that had not been sent are missing.

    Raises:
        ValueError: naming what differs.
    """
    state = {"topology": "all-gather", **state}
    whole = state.get("version") != 1
    if not whole:
        state["version"] = 2
    for key, value in own.items():
        if state.get(key) != value:
            raise ValueError(
                f"the saved exchange has {key} {state.get(key)!r}, this one has {value!r}: load each rank's "
                "own state, with the same method, topology, parameters and number of ranks"
            )
    segments: SegmentStates = state.get("segments", {})
    missing = [segment.name for segment in layout.segments if segment.name not in segments]
    if missing and (whole or not segments):
        raise ValueError(
            f"the saved exchange has no memory of {missing[0]!r} and {len(missing) - 1} others: it was saved "
            "in part, and going on without them would be wrong; load all of it, or start with new memories"
        )
    return segments
