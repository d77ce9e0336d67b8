"""Receivers: linear in the messages, or holding every node's memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.feedback._checks import check_memory, check_messages, check_out, each_message
from laconic.feedback._memories import Memories, take_round
from laconic.formats import accumulation_dtype
from laconic.kernels import scatter_add_
from laconic.kernels.receive import undo_nodes
from laconic.kernels.tables import SegmentedVector, Vectors
from laconic.layout import Layout
from laconic.messages import Group, GroupSum, Message, add_group, add_nodes_, spread

Messages = Message | Sequence[Message]
Columns = Sequence[Group]


class LinearReceiver:
    """``estimate = G + nu * sum_i w_i m_i``, then ``G <- G + lam * sum_i w_i m_i``.

    EF21 has lam = nu = 1 and G = mean h_i; DCGD and EF14 have lam = 0, so that there is no G.
    The sums run over nodes in ascending order, weights first.

    Args:
        like: the layout, or a tensor of the estimate's shape, dtype and device.
        weights: one a node.
        dtype: of the vectors, where ``like`` is a layout.
        lam: weight of the messages in G.
        nu: weight of the messages in the estimate.
    """

    def __init__(
        self,
        like: Layout | Tensor | int,
        weights: Sequence[float],
        dtype: torch.dtype = torch.float32,
        *,
        lam: float = 0.0,
        nu: float = 1.0,
    ) -> None:
        """Start at round 0 with G = 0."""
        self._layout = Layout.like(like)
        self._weights = tuple(weights)
        self._lam, self._nu = lam, nu
        self._staged: _Staged | None = None
        self._before: dict[int, Tensor] = {}
        self.round = 0
        self.memories = Memories.like(("memory",) if lam else (), like, dtype)

    def stage(
        self, messages: Messages, out: Tensor | Sequence[Tensor] | SegmentedVector | None = None
    ) -> Tensor | None:
        """The estimate after this round's messages; G stays until :meth:`commit`."""
        self.roll_back()
        like = check_messages(messages, self._layout, len(self._weights), self.round)
        if any(message.replaces is not None for message in each_message(messages)):
            raise ValueError(
                "the messages have flags for replacing a memory, as EF21+ sends them, but this receiver only "
                "adds: use EF21Plus for sender and receiver"
            )
        if self.round == 0:
            self.memories = self.memories.fitted(tuple(like.shape), self._wide(like), like.device)
        self.memories.move(like.device)
        for memory in self.memories.values():
            check_memory(memory, like)
        deferred = None
        if isinstance(out, SegmentedVector):
            deferred, out = out.deferred, out.flat
        check_out(out, like, self._layout)
        dtype = self.memories["memory"].dtype if self._lam else like.dtype
        row = not isinstance(messages, Message) and like.dim() == 1
        # Without G, sums are sparse.
        defers = row and like.device.type == "cpu" and not self._lam
        if deferred is not None and defers and _is_shorter(messages, self._layout.d):  # type: ignore[arg-type]
            by_group = zip(*(message.groups for message in each_message(messages)), strict=True)
            deferred[:] = [GroupSum(columns, self._scaled(self._nu)) for columns in by_group]
            self._staged = _Staged(messages, [], None)
            return None
        if row:
            return self._stage_row(list(messages), out, dtype)  # type: ignore[arg-type]
        estimate = torch.zeros(like.shape, dtype=dtype, device=like.device)
        if self._lam:
            estimate.copy_(self.memories["memory"])
        _add_batch_(estimate, messages, self._scaled(self._nu))
        self._staged = _Staged(messages, None, estimate)
        return estimate if out is None else _written(out, estimate)

    def _stage_row(
        self, messages: list[Message], out: Tensor | Sequence[Tensor] | None, dtype: torch.dtype
    ) -> Tensor | None:
        """One vector: one compiled call a group, on a device one a group and node."""
        estimate: Tensor | None = None
        written = out
        if out is None or not _is_written(out, dtype):
            written = estimate = torch.empty(self._layout.d, dtype=dtype, device=messages[0].device)
        assert written is not None
        goal, weights = SegmentedVector.of(written), self._scaled(self._nu)
        # The memory moves in the call that writes the estimate; what stood there is kept for an undo.
        at_once = self._lam != 0.0 and self._lam == self._nu
        undone: list[tuple[Columns, Tensor]] = []
        self._staged = _Staged(messages, undone, None)
        for columns in zip(*(message.groups for message in messages), strict=True):
            one = columns[0].format
            memory = None
            if self._lam:
                memory = Vectors.flat(self.memories["memory"], one.table.start_array)
            before = self._room(columns, dtype) if at_once and self.round else None
            if before is not None:
                undone.append((columns, before))
            add_group(
                memory,
                columns,
                weights,
                out=goal.vectors(one.places, one.table),
                before=before,
                commit=at_once,
            )
        if isinstance(out, Tensor):
            return out if estimate is None else out.copy_(estimate)
        if out is not None and estimate is not None:
            _written(out, estimate)
        return estimate if out is None else None

    def _room(self, columns: Columns, dtype: torch.dtype) -> Tensor:
        """Room for what a group's columns replace in the memory, kept from round to round."""
        group = columns[0]
        size = group.format.columns * (1 if group.positions is None else len(columns))
        number = group.format.places[0]
        room = self._before.get(number)
        if room is None or room.numel() != size or room.dtype != dtype or room.device != group.values.device:
            room = self._before[number] = torch.empty(size, dtype=dtype, device=group.values.device)
        return room

    def _wide(self, like: Tensor) -> torch.dtype:
        # A compressor may narrow its numbers; the memory has the dtype of the vectors.
        return torch.promote_types(self.memories.dtype, like.dtype)

    def commit(self) -> None:
        """Let G and the round move on."""
        if self._staged is None:
            raise RuntimeError("nothing is staged; call stage() first, or receive()")
        staged, self._staged = self._staged, None
        self.round += 1
        if not self._lam:
            return
        if staged.estimate is not None and self._lam == self._nu:
            self.memories["memory"].copy_(staged.estimate)
        elif self._lam != self._nu:
            _add_batch_(self.memories["memory"], staged.messages, self._scaled(self._lam))

    def roll_back(self) -> None:
        """Forget what is staged."""
        staged, self._staged = self._staged, None
        if staged is not None and self._lam:
            self._undo(staged, self.memories["memory"])

    def _undo(self, staged: "_Staged", memory: Tensor) -> None:
        if staged.undone is None or self._lam != self._nu:
            return
        if self.round == 0:
            memory.zero_()
        for columns, before in staged.undone:
            table = columns[0].format.table
            nodes = [group.received() for group in columns]
            undo_nodes(Vectors.flat(memory, table.start_array), nodes, table, before)

    def receive(self, messages: Messages, out: Tensor | None = None) -> Tensor:
        """The estimate after this round's messages, staged and committed."""
        estimate = self.stage(messages, out)
        self.commit()
        assert estimate is not None
        return estimate

    def _scaled(self, factor: float) -> tuple[float, ...]:
        return tuple(factor * weight for weight in self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The round and G (..., d), as before what is staged; None for methods without G."""
        memory = self.memories.snapshot().get("memory")
        if memory is not None and self._staged is not None:
            self._undo(self._staged, memory)
        return {"layout": self._layout.digest, "round": self.round, "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over round and G."""
        self.round = take_round(state, self._layout, ("memory",))
        self.memories.load(state)
        self._staged = None


class _Staged:
    """A round of a linear receiver that has not been committed."""

    def __init__(
        self, messages: Messages, undone: list[tuple[Columns, Tensor]] | None, estimate: Tensor | None
    ) -> None:
        self.messages = messages
        self.undone = undone
        self.estimate = estimate


class HoldingReceiver:
    """Holds every node's h_i, as EF21+ needs it: a message is added to h_i or replaces it.

    The estimate is ``sum_i fl(w_i h_i)``, nodes ascending. It takes n * d numbers of memory.

    Args:
        like: the layout, or a tensor of the estimate's shape, dtype and device.
        weights: one a node.
        dtype: of the vectors, where ``like`` is a layout.
    """

    def __init__(
        self, like: Layout | Tensor | int, weights: Sequence[float], dtype: torch.dtype = torch.float32
    ) -> None:
        """Start at round 0 with h_i = 0."""
        self._layout = Layout.like(like)
        self._weights = tuple(weights)
        self._staged = False
        self.round = 0
        shape = tuple(like.shape) if isinstance(like, Tensor) else (self._layout.d,)
        dtype = like.dtype if isinstance(like, Tensor) else dtype
        self.memories = Memories(("memories",), self._shape(shape), accumulation_dtype(dtype))

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], len(self._weights), shape[-1])

    def stage(
        self, messages: Messages, out: Tensor | Sequence[Tensor] | SegmentedVector | None = None
    ) -> Tensor | None:
        """The mean of the h_i after this round's messages; they stay until :meth:`commit`."""
        self._staged = False
        out = out.flat if isinstance(out, SegmentedVector) else out
        like = check_messages(messages, self._layout, len(self._weights), self.round)
        if any(message.replaces is None for message in each_message(messages)):
            raise ValueError(
                "the messages have no flags for replacing a memory: use EF21Plus for sender and receiver"
            )
        if self.round == 0:
            shape = self._shape(tuple(like.shape))
            self.memories = self.memories.fitted(shape, self._wide(like), like.device)
        self.memories.move(like.device)
        check_memory(self.memories["memories"][..., 0, :], like)
        check_out(out, like, self._layout)
        after = self.memories.scratch("memories").copy_(self.memories["memories"])
        if isinstance(messages, Message):
            _take_(after, messages)
        else:
            for i, message in enumerate(messages):
                _take_(after[..., i, :], message)
        estimate = like.new_zeros(like.shape, dtype=after.dtype)
        for i, weight in enumerate(self._weights):
            estimate += after[..., i, :] * weight
        self._staged = True
        return estimate if out is None else _written(out, estimate)

    def _wide(self, like: Tensor) -> torch.dtype:
        # A compressor may narrow its numbers; the memory has the dtype of the vectors.
        return torch.promote_types(self.memories.dtype, like.dtype)

    def commit(self) -> None:
        """Let the h_i and the round move on."""
        if not self._staged:
            raise RuntimeError("nothing is staged; call stage() first, or receive()")
        self.memories.swap("memories")
        self._staged = False
        self.round += 1

    def roll_back(self) -> None:
        """Forget what is staged."""
        self._staged = False

    def receive(self, messages: Messages, out: Tensor | None = None) -> Tensor:
        """The mean of the h_i after this round's messages, staged and committed."""
        estimate = self.stage(messages, out)
        self.commit()
        assert estimate is not None
        return estimate

    def state_dict(self) -> dict[str, Any]:
        """The round and all h_i (..., nodes, d)."""
        return {"layout": self._layout.digest, "round": self.round, **self.memories.snapshot()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over round and memories."""
        self.round = take_round(state, self._layout, ("memories",))
        self.memories.load(state)
        self._staged = False


def _is_shorter(messages: Sequence[Message], d: int) -> bool:
    """Whether the columns of all nodes take less room than their sum: some nine bytes each, and four."""
    columns = sum([group.format.columns for group in messages[0].groups])
    return 2 * len(messages) * columns <= d


def _is_written(out: Tensor | Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Whether compiled loops write sums of that dtype there."""
    tensors = (out,) if isinstance(out, Tensor) else out
    narrow = torch.bfloat16 if dtype == torch.float32 else dtype
    # One call for all tensors: a generator is entered anew for each.
    odd = [tensor for tensor in tensors if tensor.dtype not in (dtype, narrow) or not tensor.is_contiguous()]
    return not odd


def _written(out: Tensor | Sequence[Tensor], estimate: Tensor) -> Tensor | None:
    SegmentedVector.of(out).write(estimate)
    return out if isinstance(out, Tensor) else None


def _take_(memory: Tensor, message: Message) -> None:
    """Add the message, or put it in the memory's place."""
    assert message.replaces is not None
    memory.masked_fill_(spread(message.replaces, message), 0.0)
    message.add_to(memory)


def _add_batch_(out: Tensor, messages: Messages, weights: Sequence[float]) -> None:
    """``out <- fl(out + fl(w_i * m_i))``, nodes ascending; of a batch, its last leading dimension."""
    if not isinstance(messages, Message):
        add_nodes_(out, [message.groups for message in messages], weights)
        return
    column = torch.as_tensor(weights, dtype=out.dtype, device=out.device).unsqueeze(-1)
    if all(group.positions is not None and group.counts is None for group in messages.groups):
        for group in messages.groups:
            scatter_add_(out, group.flat_positions(), group.decode().to(out.dtype) * column)
        return
    for weight, message in zip(weights, messages.unbind(), strict=True):
        message.add_to(out, float(weight))
