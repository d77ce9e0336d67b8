"""What every compressor is: stateless mathematics from a tensor to a message."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laconic.compressors._constants import Constants
from laconic.compressors._finite import require_finite
from laconic.kernels import Stream
from laconic.layout import Segment
from laconic.messages import Message, Part, accumulation_dtype
from laconic.specs import PartSpec, spec_of

Undo = Callable[[Tensor], None]
"""Puts back into a memory (d,), or a copy of it, what stood there before it was moved."""


class Compressor(ABC):
    """A map C from R^d to what a node sends instead of x, applied to each row of (..., d).

    To write one, give :meth:`encode` and :meth:`constants`, and say by ``random`` whether it draws
    random numbers; a frozen dataclass makes its settings visible and comparable. Everything else
    follows. :func:`laconic.testing.check_compressor` holds a compressor against what it declares.
    """

    random: bool = False
    """Whether the message depends on random draws."""

    keeps_zeros: bool = True
    """Whether coordinates that are 0 stay 0."""

    @abstractmethod
    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The message of x, with all randomness taken from ``draw``.

        Args:
            x: (..., d), finite.
            draw: the draws of this seed, round, node and segment.
        """

    @abstractmethod
    def constants(self, d: int) -> Constants:
        """What the compressor promises on vectors of length d.

        Raises:
            ValueError: where the settings do not fit d, as k > d.
        """

    def structure(self, d: int, dtype: torch.dtype) -> PartSpec:
        """The structure of the messages of vectors of length d, which decides their bytes.

        This asks :meth:`encode` for the message of zeros once; a compressor may know better.

        Args:
            d: length of the segment.
            dtype: dtype of what is compressed.

        Raises:
            ValueError: where the settings do not fit d.
        """
        self.constants(d)
        (part,) = self.encode(torch.zeros(d, dtype=dtype), Stream(seed=0)).parts
        return spec_of(part)

    def compress(self, x: Tensor, generator: torch.Generator | Stream | None = None) -> Message:
        """The message of x: what a node sends instead of it.

        Args:
            x: (..., d), floating point, d >= 1; each row is compressed on its own.
            generator: where a random compressor takes one word from, as the seed of all its draws; or a
                :class:`~laconic.kernels.Stream`, which names the draws themselves.

        Returns:
            A message whose ``dense()`` is C(x), (..., d) in the accumulation dtype: float32, or float64
            for float64 unless the compressor narrows it (Cast).

        Raises:
            TypeError: where x is not a floating-point tensor of 16, 32 or 64 bits.
            ValueError: where x is empty, holds NaN or infinity, does not fit the settings, or where
                a random compressor gets no generator.

        Example:
            >>> import laconic
            >>> laconic.TopK(1).compress(torch.tensor([3.0, -4.0])).dense()
            tensor([ 0., -4.])
        """
        accumulation_dtype(x.dtype)
        if x.dim() == 0 or x.shape[-1] == 0:
            raise ValueError(f"compress needs a tensor of shape (..., d) with d >= 1, got {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("compress got NaN or infinity; skip the step or check the loss first")
        self.constants(x.shape[-1])
        return self.encode(x.detach(), self._stream(x, generator))

    def _stream(self, x: Tensor, generator: torch.Generator | Stream | None) -> Stream:
        if isinstance(generator, Stream):
            return generator
        if generator is None:
            if self.random:
                raise ValueError(
                    f"{self!r} is random: pass generator=torch.Generator().manual_seed(...), "
                    "so that the draws can be repeated"
                )
            return Stream(seed=0)
        word = torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=generator.device)
        rows = torch.arange(math.prod(x.shape[:-1]), device=x.device).reshape(x.shape[:-1])
        return Stream(seed=int(word), node=rows)

    def encode_difference(self, target: Tensor, memory: Tensor, draw: Stream) -> Message:
        """The message of ``target - memory``, memory left as it is.

        A compressor may override it with one pass that forms no difference; the message must be the same,
        bit for bit.

        Args:
            target: (..., d), of memory's dtype or narrower.
            memory: (..., d), in the accumulation dtype.
            draw: as for :meth:`encode`.
        """
        return self.encode(target - memory, draw)

    def encode_segments(
        self, segments: Sequence[Segment], draw: Stream, target: Tensor, memory: Tensor | None = None
    ) -> list[Part]:
        """The parts of several segments of a vector, or of ``target - memory``; memory is left as it is.

        A compressor may override it with one call for all segments; the parts must be the same.

        Args:
            segments: where each lies in the vector, and the number that keys its draws.
            draw: the draws of this seed, round and node.
            target: (..., d), the whole vector.
            memory: (..., d), or None.

        Raises:
            NotFiniteError: where what is to be compressed is not finite.
        """
        parts: list[Part] = []
        for segment in segments:
            x, at = target[..., segment.offset : segment.end], draw.at(segment.number)
            if memory is None:
                require_finite(x)
                message = self.encode(x, at)
            else:
                h = memory[..., segment.offset : segment.end]
                require_finite(x, h)
                message = self.encode_difference(x, h, at)
            parts.extend(message.parts)
        return parts

    def move_segments_(
        self,
        segments: Sequence[Segment],  # noqa: ARG002
        draw: Stream,  # noqa: ARG002
        memory: Tensor,  # noqa: ARG002
        target: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[list[Part], Undo] | None:
        """As :meth:`encode_segments`, and move the memory by what is decoded, in one reading.

        With a target, ``target - memory`` is compressed and added to memory (EF21); else memory is
        compressed and what is decoded taken away (EF14).

        Args:
            segments: as for :meth:`encode_segments`.
            draw: the same.
            memory: (..., d), the whole vector, changed in place.
            target: (..., d), of memory's dtype or narrower, or None.

        Returns:
            The parts, and what puts back into memory, or into a copy of it, what stood there before. None,
            the default, where the compressor cannot do it in one reading or could not put it back.

        Raises:
            NotFiniteError: where what is to be compressed is not finite; memory is then as before.
        """
        return None

    def track_(self, memory: Tensor, target: Tensor, draw: Stream) -> Message:
        """Compress ``target - memory`` and add the decoded message to ``memory``, in place.

        The step of EF21, EF21-BC and DIANA. A compressor may override it with one fused pass; the
        result must be the same, bit for bit.
        """
        message = self.encode_difference(target, memory, draw)
        message.add_to(memory)
        return message

    def drain_(self, residual: Tensor, draw: Stream) -> Message:
        """Compress ``residual`` and subtract the decoded message from it, in place (EF14, EControl)."""
        message = self.encode(residual, draw)
        message.add_to(residual, weight=-1.0)
        return message

    def scaled(self, factor: float) -> "Compressor":
        """``factor * C``, with constants by Theorem 6 of "On Biased Compression".

        Raises:
            ValueError: unless the factor is positive and finite.
        """
        return Scaled(self, factor)

    def contractive(self) -> "Compressor":
        """The compressor with the scaling that the theory asks for, ``C / beta`` or ``C / zeta``.

        Returns:
            A contractive compressor (class B3), as error feedback needs it; the compressor itself where
            scaling would not make its delta smaller.

        Example:
            >>> import laconic
            >>> laconic.RandK(5).constants(100).contraction is None
            True
            >>> laconic.RandK(5).contractive().constants(100).contraction
            0.05
        """
        return Scaled(self, None)

    def __rshift__(self, then: "Compressor") -> "Compressor":
        """``first >> then``: what ``first`` keeps is compressed by ``then``."""
        from laconic.compressors._chain import chain

        return chain(self, then)


@dataclass(frozen=True)
class Scaled(Compressor):
    """``factor * C``; without a factor, the one that the theory asks for at each d."""

    inner: Compressor
    factor: float | None

    def __post_init__(self) -> None:
        """Refuse factors that are not positive and finite."""
        if self.factor is not None and not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"the factor must be positive and finite, got {self.factor}")

    @property
    def random(self) -> bool:  # type: ignore[override]
        """As the compressor inside."""
        return self.inner.random

    @property
    def keeps_zeros(self) -> bool:  # type: ignore[override]
        """As the compressor inside."""
        return self.inner.keeps_zeros

    def _factor(self, d: int) -> float:
        if self.factor is not None:
            return self.factor
        c = self.inner.constants(d)
        if c.beta is None or c.gamma is None:
            raise ValueError(f"{self.inner!r} declares no B2 class, so the theory names no scaling for it")
        if c.delta is not None and c.delta <= c.beta / c.gamma:
            return 1.0
        return 1.0 / c.beta

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """The inner message times the factor."""
        return self.inner.encode(x, draw).scaled(self._factor(x.shape[-1]))

    def encode_difference(self, target: Tensor, memory: Tensor, draw: Stream) -> Message:
        """The inner message of the difference times the factor."""
        return self.inner.encode_difference(target, memory, draw).scaled(self._factor(target.shape[-1]))

    def encode_segments(
        self, segments: Sequence[Segment], draw: Stream, target: Tensor, memory: Tensor | None = None
    ) -> list[Part]:
        """The inner parts times the factor of each segment."""
        parts = self.inner.encode_segments(segments, draw, target, memory)
        return [
            replace(part, factor=part.factor * self._factor(segment.numel))
            for segment, part in zip(segments, parts, strict=True)
        ]

    def move_segments_(
        self,
        segments: Sequence[Segment],
        draw: Stream,
        memory: Tensor,
        target: Tensor | None = None,
    ) -> tuple[list[Part], Undo] | None:
        """As the inner compressor, where no segment has a factor."""
        if any(self._factor(segment.numel) != 1.0 for segment in segments):
            return None
        return self.inner.move_segments_(segments, draw, memory, target)

    def constants(self, d: int) -> Constants:
        """The inner constants, scaled."""
        return scaled_constants(self.inner.constants(d), self._factor(d))

    def structure(self, d: int, dtype: torch.dtype) -> PartSpec:
        """The inner structure with the factor."""
        spec = self.inner.structure(d, dtype)
        return replace(spec, kind=replace(spec.kind, factor=spec.kind.factor * self._factor(d)))


def scaled_constants(c: Constants, s: float) -> Constants:
    """The constants of s C by Theorem 6; delta from ``E|sC(x) - x|^2 <= (1 - gamma s (2 - beta s)) |x|^2``.

    The inequality is one line from B2 (expand the square, then E|C|^2 <= beta <E C, x> and
    <E C, x> >= gamma |x|^2) and gives the theorem's beta/gamma at s = 1/beta.
    """
    if s == 1.0:
        return c
    if c.alpha is None or c.beta is None or c.gamma is None:
        return Constants()
    contraction = c.gamma * s * (2.0 - c.beta * s)
    return Constants(
        alpha=s * s * c.alpha,
        beta=s * c.beta,
        gamma=s * c.gamma,
        delta=1.0 / contraction if contraction > 0 else None,
    )


def unbiased(zeta: float) -> Constants:
    """The constants of an unbiased compressor: U(zeta), and by Theorem 6.4 with factor 1 what follows.

    B1(1, zeta), B2(1, zeta), and B3(1 / (2 - zeta)) where zeta < 2.
    """
    delta = 1.0 / (2.0 - zeta) if zeta < 2.0 else None
    return Constants(alpha=1.0, beta=zeta, gamma=1.0, delta=delta, zeta=zeta)
