"""Checks of what an exchange is given, and its settings in words."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from laconic.comm.topologies import Topology
from laconic.feedback import Feedback
from laconic.layout import Layout


def check_tensors(tensors: Mapping[str, Tensor], layout: Layout) -> None:
    """Refuse tensors that are not one for each segment, of its shape.

    Raises:
        ValueError: naming what is missing, unknown or of another shape.
    """
    names = {segment.name for segment in layout.segments}
    if set(tensors) != names:
        odd = sorted(set(tensors) ^ names)
        raise ValueError(f"reduce_ needs a tensor for each segment by name; missing or unknown: {odd}")
    for segment in layout.segments:
        if tuple(tensors[segment.name].shape) != segment.shape:
            raise ValueError(
                f"segment {segment.name!r} has shape {segment.shape}, but its tensor has "
                f"{tuple(tensors[segment.name].shape)}"
            )


def checked_buckets(layout: Layout, buckets: Sequence[Sequence[str]] | None) -> tuple[tuple[str, ...], ...]:
    """The buckets as tuples, by default all segments in one.

    Raises:
        ValueError: unless they hold every segment once.
    """
    names = [segment.name for segment in layout.segments]
    if buckets is None:
        return (tuple(names),)
    chosen = tuple(tuple(bucket) for bucket in buckets if bucket)
    listed = [name for bucket in chosen for name in bucket]
    if sorted(listed) != sorted(names):
        odd = sorted(set(listed) ^ set(names)) or sorted({n for n in listed if listed.count(n) > 1})
        raise ValueError(f"the buckets must hold every segment once; missing, unknown or repeated: {odd}")
    return chosen


def settings_of(
    layout: Layout, feedback: Feedback, topology: Topology, dtypes: Mapping[str, torch.dtype] | None
) -> dict[str, object]:
    """What the ranks compare at construction, by name."""
    by_segment = {
        f"segment {segment.name!r}": (segment.shape, segment.rule, (dtypes or {}).get(segment.name))
        for segment in layout.segments
    }
    order = [segment.name for segment in layout.segments]
    return {**by_segment, "order of segments": order, "feedback": feedback, "topology": topology.name}
