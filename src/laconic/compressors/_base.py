"""The base class of compressors: stateless maps from a tensor to a message."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laconic.compressors._constants import Constants
from laconic.compressors._job import Compressed, Job, nothing_to_undo
from laconic.compressors._not_finite import require_finite
from laconic.formats import SegmentFormat, accumulation_dtype
from laconic.kernels import Stream
from laconic.messages import Message, Part
from laconic.messages._group import join_parts


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

    moves_memory: bool = True
    """Whether :meth:`compress_together` may move the memory by what it keeps, before any factor."""

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

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """The structure of the messages of vectors of length d, which decides their bytes.

        This asks :meth:`encode` for the message of zeros once; a compressor may know better.

        Args:
            d: length of the segment.
            dtype: dtype of what is compressed.

        Raises:
            ValueError: where the settings do not fit d.
        """
        self.constants(d)
        (part,) = self.encode(torch.zeros(d, dtype=dtype, device="cpu"), Stream(seed=0)).parts
        return part.format

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

    def compress_together(self, job: Job) -> Compressed | None:  # noqa: ARG002
        """Compress all segments of a group in one call, where the compressor can.

        A compressor may override it to be fast. The columns must be those of :meth:`encode`, bit for bit.

        Args:
            job: what is compressed, and what happens to the memory.

        Returns:
            The columns; or None, the default, where :meth:`encode` is to be called for each segment.

        Raises:
            NotFiniteError: where what is to be compressed is not finite; the memory is then as before.
        """
        return None

    def compress_group(self, job: Job) -> Compressed:
        """Compress all segments of a group, together or one by one.

        Args:
            job: what is compressed, and what happens to the memory.

        Raises:
            NotFiniteError: where what is to be compressed is not finite; the memory is then as before.
        """
        if (together := self.compress_together(job)) is not None:
            return together
        one = job.format
        parts: list[Part] = []
        for s, number in enumerate(one.table.numbers):
            x = job.segment(s)
            require_finite(x)
            (group,) = self.encode(x, job.draw.at(number)).groups
            parts.append(group.whole_part())
        group = join_parts(one, parts)
        if job.update != "drain":
            return Compressed(group)
        assert job.out is not None
        group.add_to(job.out, -1.0)
        return Compressed(group, nothing_to_undo)

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
        """``first >> then``: only a sparsifier can be first; TypeError."""
        raise TypeError(
            f"{self!r} >> {then!r}: the first must be a sparsifier such as TopK or RandK; "
            "apply .scaled(...) and .contractive() to the whole, as (first >> then).contractive()"
        )


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

    def compress_together(self, job: Job) -> Compressed | None:
        """As the inner compressor, where it makes no use of the factor, which is in the group's format."""
        if self.inner.moves_memory and any(self._factor(numel) != 1.0 for numel in job.format.numels):
            return None
        return self.inner.compress_together(job)

    def constants(self, d: int) -> Constants:
        """The inner constants, scaled."""
        return scaled_constants(self.inner.constants(d), self._factor(d))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """The inner structure with the factor."""
        one = self.inner.structure(d, dtype)
        return replace(one, factor=one.factor * self._factor(d))


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
