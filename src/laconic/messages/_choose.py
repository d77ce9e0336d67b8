"""Choice between two messages by segment, and flags of segments repeated over their coordinates."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.messages._group import Group
from laconic.messages._message import Message


def choose(condition: Tensor, first: Message, second: Message) -> Message:
    """Segment by segment of each row, the first message where ``condition`` holds, else the second.

    Both must come from the same compressor, without draws, on vectors of the same shape.

    Args:
        condition: bool (..., S), segments in the layout's order.
    """
    groups = tuple(_chosen(condition, a, b) for a, b in zip(first.groups, second.groups, strict=True))
    return replace(first, groups=groups)


def _chosen(condition: Tensor, first: Group, second: Group) -> Group:
    one, other = first.format, second.tensors()
    mask = condition[..., list(one.places)]
    columns = mask[..., one.segment_of_column.to(mask.device)]
    scales = mask.repeat_interleave(torch.from_numpy(np.diff(one.scale_bounds)).to(mask.device), dim=-1)
    by_field = {"values": columns, "positions": columns, "counts": mask, "scale": scales, "low": scales}
    chosen: dict[str, Any] = {
        name: torch.where(by_field[name], tensor, other[name]) for name, tensor in first.tensors().items()
    }
    return first.with_tensors(chosen)


def spread(flags: Tensor, message: Message) -> Tensor:
    """Flags of a message's segments, (..., S), repeated over their coordinates: (..., d)."""
    lengths = np.empty(message.format.segments, np.int64)
    for group in message.groups:
        lengths[list(group.format.places)] = group.format.numels
    return flags.repeat_interleave(torch.from_numpy(lengths).to(flags.device), dim=-1)
