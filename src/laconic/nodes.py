"""The messages of all nodes of a round, taken together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from laconic.kernels import add_nodes_into, scatter_add_
from laconic.messages import Message, flat_positions, is_sparse


def choose(condition: Tensor, first: Message, second: Message) -> Message:
    """Part by part of each row, the first message where ``condition`` holds, else the second.

    Both must come from the same compressor on vectors of the same shape.

    Args:
        condition: bool (..., parts).
    """
    parts = []
    for number, (a, b) in enumerate(zip(first.parts, second.parts, strict=True)):
        mask, other = condition[..., number, None], b.tensors()
        chosen: dict[str, Any] = {
            name: torch.where(mask, tensor, other[name]) for name, tensor in a.tensors().items()
        }
        parts.append(replace(a, **chosen))
    return replace(first, parts=tuple(parts))


def spread(flags: Tensor, message: Message) -> Tensor:
    """Flags of a message's parts, (..., parts), repeated over the parts' coordinates: (..., d)."""
    lengths = torch.tensor([part.d for part in message.parts], device=flags.device)
    return flags.repeat_interleave(lengths, dim=-1)


def add_nodes_(
    out: Tensor,
    messages: Message | Sequence[Message],
    weights: Sequence[float],
    base: Tensor | None = None,
) -> None:
    """``out <- fl(out + fl(w_i * m_i))`` in place, for the nodes i in ascending order.

    Args:
        out: (..., d).
        messages: one message a node, each with the leading dimensions of out; or one batch whose last
            leading dimension is the nodes.
        weights: a number for each node.
        base: (..., d) of out's dtype, what the messages are added to instead of out; it stays as it is.
    """
    sparse = all(map(is_sparse, (messages,) if isinstance(messages, Message) else messages))
    if sparse and out.dim() == 1 and out.is_contiguous() and not isinstance(messages, Message):
        places = [flat_positions(message) for message in messages]
        numbers = [torch.cat([part.decode() for part in m.parts]).to(out.dtype) for m in messages]
        if base is None:
            add_nodes_into(out, places, numbers, weights)
        else:
            add_nodes_into(base, places, numbers, weights, out, commit=False)
        return
    if base is not None:
        out.copy_(base)
    if isinstance(messages, Message):
        if sparse:
            _add_sparse_batch_(out, messages, weights)
            return
        messages = messages.unbind()
    for weight, message in zip(weights, messages, strict=True):
        message.add_to(out, float(weight))


def _add_sparse_batch_(out: Tensor, messages: Message, weights: Sequence[float]) -> None:
    column = torch.as_tensor(weights, dtype=out.dtype, device=out.device).unsqueeze(-1)
    numbers = torch.cat([part.decode() for part in messages.parts], dim=-1).to(out.dtype) * column
    scatter_add_(out, flat_positions(messages), numbers)
