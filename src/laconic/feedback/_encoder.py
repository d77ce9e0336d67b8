"""A compressor applied segment by segment, with the draws of a node and a round."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors import Compressor, Identity, for_rule
from laconic.kernels import Stream
from laconic.layout import Layout, Segment
from laconic.messages import Message, Part, accumulation_dtype


@dataclass(frozen=True)
class Encoder:
    """Turns flat vectors (..., d) into messages of one part a segment."""

    layout: Layout
    compressor: Compressor
    node: int | Tensor
    seed: int | Tensor

    def __post_init__(self) -> None:
        """Check the settings against every segment, before any memory exists."""
        for segment in self.layout.segments:
            self._for(segment).constants(segment.numel)

    def _for(self, segment: Segment) -> Compressor:
        return for_rule(segment.rule, self.compressor)

    def dense(self, x: Tensor, round: int) -> Message:
        """The whole vector."""
        return self._each(round, lambda _, part, draw: Identity().encode(part, draw), x)

    def rounded(self, x: Tensor, round: int) -> Message:
        """The whole vector, rounded to bfloat16 save where a segment travels exactly."""
        narrow = for_rule("bfloat16", self.compressor)
        whole = for_rule("exact", self.compressor)
        return self._each(
            round, lambda own, part, draw: (whole if own == whole else narrow).encode(part, draw), x
        )

    def encode(self, x: Tensor, round: int) -> Message:
        """The compressed vector."""
        return self._each(round, lambda compressor, part, draw: compressor.encode(part, draw), x)

    def track_(self, memory: Tensor, target: Tensor, round: int) -> Message:
        """Compress target - memory, and add what was kept to memory."""
        return self._each(round, lambda compressor, m, t, draw: compressor.track_(m, t, draw), memory, target)

    def drain_(self, residual: Tensor, round: int) -> Message:
        """Compress the residual, and subtract what was kept from it."""
        return self._each(round, lambda compressor, r, draw: compressor.drain_(r, draw), residual)

    def silent(self, x: Tensor, round: int) -> Message:
        """A message that says nothing."""
        positions = torch.empty((*x.shape[:-1], 0), dtype=torch.int64, device=x.device)
        parts = tuple(
            Part(d=segment.numel, values=x[..., :0].clone(), dtype=x.dtype, positions=positions)
            for segment in self.layout.segments
        )
        return Message(parts, round=round, digest=self.layout.digest)

    def _each(self, round: int, encode: Callable[..., Message], *vectors: Tensor) -> Message:
        draw = Stream(self.seed, round, self.node)
        parts: list[Part] = []
        for segment in self.layout.segments:
            stretch = [vector[..., segment.offset : segment.end] for vector in vectors]
            parts.extend(encode(self._for(segment), *stretch, draw.at(segment.number)).parts)
        return Message(tuple(parts), round=round, digest=self.layout.digest)


def checked(gradient: Tensor, layout: Layout, memory: Tensor | None) -> Tensor:
    """The gradient in the memory's dtype, at first in its own accumulation dtype.

    Raises:
        ValueError: where its shape does not fit the layout or the memory.
    """
    dtype = accumulation_dtype(gradient.dtype)
    if gradient.dim() == 0 or gradient.shape[-1] != layout.d:
        raise ValueError(
            f"the layout has {layout.d} elements, but the gradient has shape {tuple(gradient.shape)}"
        )
    if memory is not None and memory.shape != gradient.shape:
        raise ValueError(
            f"the memory has shape {tuple(memory.shape)}, but the gradient has shape "
            f"{tuple(gradient.shape)}; "
            "make a new sender for another batch of nodes or runs"
        )
    return gradient.detach().to(dtype if memory is None else memory.dtype)


class NotFiniteError(ValueError):
    """Numbers that must not reach a memory: NaN or infinity."""


def require_finite(x: Tensor) -> None:
    """Refuse to compress what would stay in a memory for ever.

    Asked of what is compressed rather than of the gradient: a gradient and a memory can be finite, and
    their sum or difference not.

    Raises:
        NotFiniteError: for NaN or infinity.
    """
    if not bool(torch.isfinite(x).all()):
        raise NotFiniteError(
            "the gradient holds NaN or infinity, or becomes infinite together with the memory or the "
            "stepsize; skip this step on every node (the memory is unchanged)"
        )


def require_contractive(compressor: Compressor, layout: Layout, method: str) -> None:
    """Refuse a compressor that is not contractive (class B3) on some segment.

    Raises:
        ValueError: naming ``.contractive()``.
    """
    for segment in layout.segments:
        if segment.rule == "compress" and compressor.constants(segment.numel).contraction is None:
            raise ValueError(
                f"{method} needs a contractive compressor, and {compressor!r} is not one for d = "
                f"{segment.numel}: the method would diverge. Use its .contractive() form"
            )
