"""Update rules of nodes: the message of a round, and the update of the memories."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from laconic.feedback._encoder import Content, Encoder
from laconic.feedback._memories import Memories, Rooms
from laconic.formats import accumulation_dtype
from laconic.kernels import SegmentedInput, squared_norm, squared_norms
from laconic.kernels.tables import SegmentedVector, Vectors
from laconic.layout import Layout
from laconic.messages import Message, choose, spread

_ROOMS = Rooms()


@dataclass(frozen=True)
class RoundInputs:
    """What a method has before it in one round.

    Args:
        encoder: the compressor on its layout.
        memories: by name, each (..., d).
        gradient: the vector, perhaps narrower than the memories.
        round: the round.
        content: what the round's message holds of a vector.
        stepsize: for methods that remember steps.
    """

    encoder: Encoder
    memories: Memories
    gradient: SegmentedVector
    round: int
    content: Content = "compressed"
    stepsize: float | Tensor | None = None

    def flat(self) -> Tensor:
        """The gradient (..., d) in the dtype of the memories."""
        return self.wide().flattened()

    def compress(self, x: Tensor) -> Message:
        """The round's message of a vector (..., d) in the dtype of the memories.

        Raises:
            NotFiniteError: where the vector is not finite.
        """
        return self.encoder.message(SegmentedVector(x), self.round, self.content)

    def wide(self) -> SegmentedVector:
        """The gradient in its accumulation dtype, or that of the memories."""
        dtype = accumulation_dtype(self.gradient.like.dtype)
        for memory in self.memories.values():
            dtype = accumulation_dtype(memory.dtype)
        return self.gradient.widened(dtype)

    def narrow(self) -> SegmentedVector:
        """The gradient as it is, where its sums with a memory have the memory's dtype; else widened."""
        dtype = accumulation_dtype(self.gradient.like.dtype)
        fits = all(accumulation_dtype(memory.dtype) == dtype for memory in self.memories.values())
        return self.gradient if fits else self.wide()


@dataclass(frozen=True)
class PendingUpdate:
    """A round that has not been committed.

    Args:
        message: what is sent.
        memories: those of the next round by name, each a new tensor (..., d); what is not named stays.
        commit: what else moves a memory on.
        undo: puts back, in memories or copies of them, what has already changed.
    """

    message: Message
    memories: Mapping[str, Tensor] = field(default_factory=dict)
    commit: Callable[[Memories], None] = lambda _: None
    undo: Callable[[Mapping[str, Tensor]], None] = lambda _: None


def stage_direct(inputs: RoundInputs) -> PendingUpdate:
    """m = C(g): nothing is remembered."""
    return PendingUpdate(inputs.encoder.message(inputs.wide(), inputs.round))


def stage_residual(inputs: RoundInputs, decay: float = 1.0) -> PendingUpdate:
    """m = C(e + g), e <- decay (e + g - m) (EF14); with a stepsize, C(e + stepsize * g).

    Sum, difference and product are rounded one after another: ``fl(decay * fl(fl(e + g) - m))``. A residual
    that is kept in bfloat16 is widened before, and rounded to the nearest after all of it.
    """
    target = inputs.narrow() if inputs.stepsize is None else _scaled(inputs.wide(), inputs.stepsize)
    residual, after = inputs.memories["residual"], inputs.memories.scratch("residual")
    if residual.dtype == torch.bfloat16:
        wide, rest = _ROOMS.like("residual", residual).copy_(residual), _ROOMS.like("rest", residual)
        found = inputs.encoder.compress(target, inputs.round, wide, "drain", rest)
        after.copy_(rest if decay == 1.0 else rest.mul_(decay))
        return PendingUpdate(found.message, commit=lambda memories: memories.swap("residual"))
    found = inputs.encoder.compress(target, inputs.round, residual, "drain", after)

    def commit(memories: Memories) -> None:
        memories.swap("residual")
        if decay != 1.0:
            memories["residual"].mul_(decay)

    return PendingUpdate(found.message, commit=commit)


def stage_difference(inputs: RoundInputs) -> PendingUpdate:
    """m = C(g - h), h <- h + m (EF21); round 0 starts h at what the round's content holds of g."""
    if inputs.round == 0:
        return _begin(inputs)
    memory = inputs.memories["memory"]
    found = inputs.encoder.compress(inputs.narrow(), inputs.round, memory, "track")
    return PendingUpdate(
        found.message,
        commit=lambda memories: found.finish(memories["memory"]),
        undo=lambda memories: found.undo(memories["memory"]),
    )


def stage_difference_or_restart(inputs: RoundInputs) -> PendingUpdate:
    """m = C(g - h) to be added to h, or m = C(g) to replace it, whichever leaves h nearer to g (EF21+).

    The choice is made for each node and segment, so that it cannot depend on how segments are grouped for
    sending; equally near, m is added. The theorem holds segment by segment, so it holds for the whole.
    """
    encoder, memories, gradient = inputs.encoder, inputs.memories, inputs.wide()
    flat = gradient.flattened()
    if inputs.round == 0:
        first = _begin(inputs)
        flags = (*flat.shape[:-1], first.message.format.segments)
        restarts = torch.zeros(flags, dtype=torch.bool, device=flat.device)
        return replace(first, message=replace(first.message, replaces=restarts))
    adding = encoder.compress(gradient, inputs.round, memories["memory"]).message
    added = memories.scratch("memory").copy_(memories["memory"])
    adding.add_to(added)
    replacing = encoder.message(gradient, inputs.round)
    replaced = replacing.dense().to(added.dtype)
    distances = [squared_distances(encoder.layout, vector, flat) for vector in (replaced, added)]
    restarts = distances[0] < distances[1]
    message = replace(choose(restarts, replacing, adding), replaces=restarts)
    torch.where(spread(restarts, message), replaced, added, out=added)
    return PendingUpdate(message, commit=lambda changed: changed.swap("memory"))


def squared_distances(layout: Layout, x: Tensor, y: Tensor) -> Tensor:
    """``|x - y|^2`` of each segment, a canonical sum: (..., d) of one dtype to float64 (..., S)."""
    if x.device.type != "cpu":
        squares = [squared_norm(x[..., s.offset : s.end] - y[..., s.offset : s.end]) for s in layout.segments]
        return torch.stack(squares, dim=-1)
    batch, numels = x.shape[:-1], np.array(layout.numels)
    starts = (np.arange(batch.numel())[:, None] * layout.d + np.cumsum(numels) - numels).reshape(-1)
    inputs = SegmentedInput(
        Vectors.flat(x.reshape(-1), starts),
        np.tile(numels, batch.numel()),
        np.zeros(len(starts), np.int64),
        Vectors.flat(y.reshape(-1), starts),
    )
    return squared_norms(inputs).reshape(*batch, len(numels))


def _begin(inputs: RoundInputs) -> PendingUpdate:
    """How EF21 starts.

    The memory is what the message says, ``h <- fl(0 + v)``: both ends start from the same bits, also where
    the compressor narrows its numbers.
    """
    message = inputs.encoder.message(inputs.wide(), inputs.round, inputs.content)
    return PendingUpdate(message, commit=lambda memories: message.add_to(memories["memory"].zero_()))


def _scaled(gradient: SegmentedVector, stepsize: float | Tensor) -> SegmentedVector:
    """``stepsize * gradient`` in the gradient's dtype and shape."""
    flat = gradient.flattened()
    if not isinstance(stepsize, Tensor):
        return SegmentedVector(flat * stepsize)
    scaled = flat * stepsize.detach().to(flat.dtype)
    if scaled.shape != flat.shape:
        raise ValueError(
            f"the stepsize has shape {tuple(stepsize.shape)}, which does not broadcast to "
            f"{(*flat.shape[:-1], 1)}, the gradient's leading dimensions and 1"
        )
    return SegmentedVector(scaled)
