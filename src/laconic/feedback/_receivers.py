"""The receivers: linear in the messages, or holding every node's memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.feedback._state import snapshot, take_state
from laconic.layout import Layout
from laconic.messages import Message, is_sparse
from laconic.nodes import add_nodes_, spread


class LinearReceiver:
    """``estimate = G + nu * sum_i w_i m_i``, then ``G <- G + lam * sum_i w_i m_i``.

    EF21 has lam = nu = 1 and G = mean h_i; DCGD and EF14 have lam = 0, so that G stays 0.
    The sums run over nodes in ascending order, weights first.
    """

    def __init__(
        self, layout: Layout, weights: Sequence[float], *, lam: float = 0.0, nu: float = 1.0
    ) -> None:
        """Start at round 0 with G = 0."""
        self._layout = layout
        self._weights = tuple(weights)
        self._lam = lam
        self._nu = nu
        self.round = 0
        self.memory: Tensor | None = None
        self._staged: tuple[Message | Sequence[Message], Tensor] | None = None

    def stage(self, messages: Message | Sequence[Message], out: Tensor | None = None) -> Tensor:
        """The estimate after this round's messages; G stays until :meth:`commit`."""
        self._staged = None
        like = check_messages(messages, self._layout, len(self._weights), self.round)
        if any(message.replaces is not None for message in _each(messages)):
            raise ValueError(
                "a message says whether it adds or replaces, which this receiver cannot hear; "
                "EF21+ needs EF21+ at both ends"
            )
        if self.memory is not None:
            check_memory(self.memory, like)
        check_out(out, like)
        dtype = like.dtype if self.memory is None else self.memory.dtype
        estimate = like.new_empty(like.shape, dtype=dtype) if out is None or out.dtype != dtype else out
        if self.memory is None:
            estimate.zero_()
        add_nodes_(estimate, messages, self._scaled(self._nu), self.memory)
        self._staged = messages, estimate
        return estimate if out is None or out is estimate else out.copy_(estimate)

    def commit(self) -> None:
        """Let G and the round move on."""
        if self._staged is None:
            raise RuntimeError("nothing is staged; call stage() first, or receive()")
        messages, estimate = self._staged
        self._staged = None
        self.round += 1
        if self._lam == 0.0:
            return
        if self.memory is None:
            self.memory = torch.zeros_like(estimate, memory_format=torch.contiguous_format)
        if self._lam == self._nu and not all(map(is_sparse, _each(messages))):
            self.memory.copy_(estimate)
        else:
            # The same additions once more, at few places: cheaper than to copy every coordinate.
            add_nodes_(self.memory, messages, self._scaled(self._lam))

    def roll_back(self) -> None:
        """Forget what is staged."""
        self._staged = None

    def receive(self, messages: Message | Sequence[Message], out: Tensor | None = None) -> Tensor:
        """The estimate after this round's messages, staged and committed."""
        estimate = self.stage(messages, out)
        self.commit()
        return estimate

    def _scaled(self, factor: float) -> tuple[float, ...]:
        return tuple(factor * weight for weight in self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The round and G (..., d); None where there is none."""
        return {"layout": self._layout.digest, "round": self.round, "memory": snapshot(self.memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and G."""
        self.round = take_state(state, self._layout, ("memory",))
        self.memory = snapshot(state["memory"])


class HoldingReceiver:
    """Holds every node's h_i, as EF21+ needs it: a message is added to h_i or replaces it.

    The estimate is ``sum_i fl(w_i h_i)``, nodes ascending. It takes n * d numbers of memory.
    """

    def __init__(self, layout: Layout, weights: Sequence[float]) -> None:
        """Start at round 0 with h_i = 0."""
        self._layout = layout
        self._weights = tuple(weights)
        self.round = 0
        self.memories: Tensor | None = None
        self._staged: Tensor | None = None

    def stage(self, messages: Message | Sequence[Message], out: Tensor | None = None) -> Tensor:
        """The mean of the h_i after this round's messages; they stay until :meth:`commit`."""
        self._staged = None
        like = check_messages(messages, self._layout, len(self._weights), self.round)
        if any(message.replaces is None for message in _each(messages)):
            raise ValueError("a message does not say whether it replaces; EF21+ needs EF21+ at both ends")
        nodes = len(self._weights)
        if self.memories is None:
            after = like.new_zeros(*like.shape[:-1], nodes, like.shape[-1])
        else:
            check_memory(self.memories[..., 0, :], like)
            after = self.memories.clone()
        check_out(out, like)
        if isinstance(messages, Message):
            _take_(after, messages)
        else:
            for i, message in enumerate(messages):
                _take_(after[..., i, :], message)
        estimate = like.new_zeros(like.shape, dtype=after.dtype)
        for i, weight in enumerate(self._weights):
            estimate += after[..., i, :] * weight
        self._staged = after
        return estimate if out is None else out.copy_(estimate)

    def commit(self) -> None:
        """Let the h_i and the round move on."""
        if self._staged is None:
            raise RuntimeError("nothing is staged; call stage() first, or receive()")
        self.memories, self._staged = self._staged, None
        self.round += 1

    def roll_back(self) -> None:
        """Forget what is staged."""
        self._staged = None

    def receive(self, messages: Message | Sequence[Message], out: Tensor | None = None) -> Tensor:
        """The mean of the h_i after this round's messages, staged and committed."""
        estimate = self.stage(messages, out)
        self.commit()
        return estimate

    def state_dict(self) -> dict[str, Any]:
        """The round and all h_i (..., nodes, d)."""
        return {"layout": self._layout.digest, "round": self.round, "memories": snapshot(self.memories)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over round and memories."""
        self.round = take_state(state, self._layout, ("memories",))
        self.memories = snapshot(state["memories"])


def _take_(memory: Tensor, message: Message) -> None:
    """Add the message, or put it in the memory's place."""
    assert message.replaces is not None
    memory.masked_fill_(spread(message.replaces, message), 0.0)
    message.add_to(memory)


def check_messages(messages: Message | Sequence[Message], layout: Layout, nodes: int, round: int) -> Tensor:
    """An empty vector like the estimate (..., d), once all messages are known to fit together.

    Raises:
        ValueError: naming the node and what is different.
    """
    each = _each(messages)
    batch = each[0].batch if each else torch.Size()
    count = len(each)
    if isinstance(messages, Message):
        if not batch:
            raise ValueError("got one node's message alone; give a list with a message of each node")
        batch, count = batch[:-1], batch[-1]
    if count != nodes:
        raise ValueError(f"the receiver expects a message from each of {nodes} nodes, but got {count}")
    first = each[0]
    for node, message in enumerate(each):
        if message.digest != layout.digest or message.d != layout.d:
            raise ValueError(
                f"the message of node {node} belongs to another layout ({message.d} elements, digest "
                f"{message.digest:#010x}; here {layout.d} and {layout.digest:#010x}): "
                "do all nodes have the same parameters?"
            )
        if message.round != round:
            raise ValueError(
                f"the message of node {node} is of round {message.round}, but the receiver is at round "
                f"{round}: did a node skip a step?"
            )
        if message.batch != first.batch or message.dtype != first.dtype:
            raise ValueError(
                f"the message of node {node} has leading dimensions {tuple(message.batch)} and "
                f"{message.dtype} numbers, but that of node 0 {tuple(first.batch)} and {first.dtype}"
            )
    # Only its shape, dtype and device are looked at: it takes no memory.
    return torch.empty((), dtype=first.dtype, device=first.parts[0].values.device).expand(*batch, layout.d)


def check_memory(memory: Tensor, like: Tensor) -> None:
    """Refuse messages that the memory cannot take, before any of them has changed it."""
    if memory.shape != like.shape or torch.promote_types(memory.dtype, like.dtype) != memory.dtype:
        raise ValueError(
            f"the memory has shape {tuple(memory.shape)} and {memory.dtype} numbers, but the messages make "
            f"{tuple(like.shape)} and {like.dtype}; make a new receiver for another batch of runs or "
            "another dtype"
        )


def check_out(out: Tensor | None, like: Tensor) -> None:
    """Refuse an ``out`` of another shape, before a memory has moved on."""
    if out is not None and out.shape != like.shape:
        raise ValueError(f"the estimate has shape {tuple(like.shape)}, but out has shape {tuple(out.shape)}")


def _each(messages: Message | Sequence[Message]) -> Sequence[Message]:
    return (messages,) if isinstance(messages, Message) else messages
