"""Checks of what a receiver is given, before any memory changes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.layout import Layout
from laconic.messages import Message


def each_message(messages: Message | Sequence[Message]) -> Sequence[Message]:
    """The messages, a batch as one."""
    return (messages,) if isinstance(messages, Message) else messages


def check_messages(messages: Message | Sequence[Message], layout: Layout, nodes: int, round: int) -> Tensor:
    """An empty vector like the estimate (..., d), once all messages are known to fit together.

    Raises:
        ValueError: naming the node and what is different.
    """
    each = each_message(messages)
    batch = each[0].batch if each else torch.Size()
    count = len(each)
    if isinstance(messages, Message):
        if not batch:
            raise ValueError("got one node's message alone; give a list with a message of each node")
        batch, count = batch[:-1], batch[-1]
    if count != nodes:
        raise ValueError(f"the receiver expects a message from each of {nodes} nodes, but got {count}")
    first = each[0]
    digest = layout.digest_of(first.dtype)
    for node, message in enumerate(each):
        if message.batch != first.batch or message.dtype != first.dtype:
            raise ValueError(
                f"the message of node {node} has leading dimensions {tuple(message.batch)} and "
                f"{message.dtype} numbers, but that of node 0 {tuple(first.batch)} and {first.dtype}"
            )
        if message.digest != digest or message.d != layout.d:
            raise ValueError(
                f"the message of node {node} belongs to another layout ({message.d} elements, digest "
                f"{message.digest:#010x}; here {layout.d} and {digest:#010x}): "
                "do all nodes have the same parameters?"
            )
        if message.round != round:
            raise ValueError(
                f"the message of node {node} is of round {message.round}, but the receiver is at round "
                f"{round}: did a node skip a step?"
            )
        if any(a.format != b.format for a, b in zip(message.groups, first.groups, strict=True)):
            raise ValueError(
                f"the message of node {node} is of another compressor than that of node 0: "
                f"{first.format.difference(message.format.groups)}"
            )
    # Only its shape, dtype and device are looked at: it takes no memory.
    return torch.empty((), dtype=first.dtype, device=first.device).expand(*batch, layout.d)


def check_memory(memory: Tensor, like: Tensor) -> None:
    """Refuse messages that the memory cannot take, before any of them has changed it."""
    if memory.shape != like.shape or torch.promote_types(memory.dtype, like.dtype) != memory.dtype:
        raise ValueError(
            f"the memory has shape {tuple(memory.shape)} and {memory.dtype} numbers, but the messages make "
            f"{tuple(like.shape)} and {like.dtype}; make a new receiver for another batch of runs or "
            "another dtype"
        )


def check_out(out: Tensor | Sequence[Tensor] | None, like: Tensor, layout: Layout) -> None:
    """Refuse an ``out`` of another shape, before a memory has moved on."""
    if out is None:
        return
    if isinstance(out, Tensor):
        if out.shape != like.shape:
            raise ValueError(
                f"the estimate has shape {tuple(like.shape)}, but out has shape {tuple(out.shape)}"
            )
    elif [tensor.numel() for tensor in out] != layout.numels:
        raise ValueError("out needs a tensor for each segment, of as many numbers")
