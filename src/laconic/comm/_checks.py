"""Checks of what an exchange is given, and its settings in words."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm.topologies import Topology
from laconic.feedback import Feedback
from laconic.layout import Layout


def check_group(process_group: object) -> None:
    """Refuse what is not a process group.

    Raises:
        TypeError: naming what is meant.
        ValueError: for a group that this process does not belong to.
    """
    if process_group is not None and process_group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("this process does not belong to the process group that was passed")
    if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
        raise TypeError(
            "process_group must be a group that torch.distributed.new_group() returned, or None for all "
            f"ranks; got {process_group!r}"
        )


def check_tensors(tensors: Mapping[str, Tensor], layout: Layout) -> None:
    """Refuse tensors that are not one for each segment, of its shape.

    Raises:
        TypeError: for what is not a dense tensor of real floating-point numbers.
        ValueError: naming what is missing, unknown, of another shape, or of another dtype or device.
    """
    names = {segment.name for segment in layout.segments}
    if set(tensors) != names:
        odd = sorted(set(tensors) ^ names)
        raise ValueError(f"reduce_ needs a tensor for each segment by name; missing or unknown: {odd}")
    for segment in layout.segments:
        tensor = tensors[segment.name]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"segment {segment.name!r} needs a tensor, got {type(tensor).__name__}")
        if (shape := tuple(tensor.shape)) != segment.shape:
            raise ValueError(
                f"segment {segment.name!r} has shape {segment.shape}, but its tensor has {shape}"
            )
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise TypeError(
                f"segment {segment.name!r} needs a dense tensor of real floating-point numbers, got "
                f"{tensor.dtype}, {tensor.layout}"
            )
        if tensor.requires_grad and tensor.is_leaf:
            raise ValueError(
                f"the tensor of segment {segment.name!r} requires a gradient and would be overwritten: "
                "pass its .grad, or a detached tensor"
            )
    kinds = {f"{tensor.dtype} on {tensor.device}" for tensor in tensors.values()}
    if len(kinds) > 1:
        raise ValueError(f"the tensors must have one dtype and device, got {', '.join(sorted(kinds))}")


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
