"""What both ends know of a message before it travels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from laconic.compressors import Compressor, for_rule
from laconic.layout import Layout
from laconic.messages import Message, accumulation_dtype
from laconic.sizes import FRAME_BYTES, largest_bytes, section_bytes, whole_bytes
from laconic.specs import Kind, PartSpec, adapted, describe, spec_of
from laconic.wire._errors import WireError
from laconic.wire._frame import Flags


@dataclass(frozen=True)
class Schema:
    """The structure of the messages of one sender, so that they travel without a description.

    Build it once from what both ends share, by :meth:`of`; or from a message, by :meth:`like`.

    Args:
        specs: the structure of each part.
        digest: the layout's.
        dtype: dtype of the vectors, for rounds in which they travel whole.
        choosing: whether a bit for each segment says what it is, as in EF21+.

    Example:
        >>> import laconic
        >>> schema = Schema.of(laconic.Layout.flat(10_000), laconic.TopK(0.01))
        >>> schema.fixed, schema.max_nbytes
        (True, 527)
    """

    specs: tuple[PartSpec, ...]
    digest: int
    dtype: torch.dtype = torch.float32
    choosing: bool = False

    @classmethod
    def of(
        cls,
        layout: Layout,
        compressor: Compressor,
        dtype: torch.dtype = torch.float32,
        *,
        choosing: bool = False,
        adaptive: bool = False,
    ) -> "Schema":
        """What a sender on this layout with this compressor sends of vectors of this dtype.

        Computed from the settings, without data. Senders compress in the accumulation dtype: float32 for
        gradients of 16 and 32 bits.

        Args:
            layout: the sender's.
            compressor: the sender's.
            dtype: of the vectors that are compressed.
            choosing: whether the method is EF21+.
            adaptive: whether positions travel in blocks that adapt to their density. Real gradients cluster,
                which saves a quarter of the positions' bytes; but sizes vary below ``max_nbytes``, so that
                they have to be exchanged first.

        Raises:
            ValueError: where the compressor's settings do not fit a segment.
        """
        specs = []
        for segment in layout.segments:
            spec = for_rule(segment.rule, compressor).structure(segment.numel, dtype)
            specs.append(adapted(spec) if adaptive else spec)
        return cls(tuple(specs), layout.digest, dtype, choosing)

    @classmethod
    def like(cls, message: Message, *, adaptive: bool = False) -> "Schema":
        """The structure of a message, for others of the same sender; ``adaptive`` as for :meth:`of`."""
        specs = tuple(map(spec_of, message.parts))
        if adaptive:
            specs = tuple(map(adapted, specs))
        return cls(specs, message.digest, message.dtype, message.replaces is not None)

    @cached_property
    def description(self) -> bytes:
        """The bytes that say all this in a message that describes itself."""
        return describe(self.specs)

    @cached_property
    def fixed(self) -> bool:
        """Whether every message has the same size, ``max_nbytes``: no collective of sizes is needed."""
        return not any(spec.kind.counted or spec.kind.adaptive for spec in self.specs)

    @cached_property
    def adaptive(self) -> bool:
        """Whether positions travel in blocks that adapt to their density."""
        return any(spec.kind.adaptive for spec in self.specs)

    @cached_property
    def max_nbytes(self) -> int:
        """Bytes of the largest message, frame included; of dense rounds see ``dense_nbytes``."""
        return self._head_nbytes + sum(map(largest_bytes, self.specs))

    @cached_property
    def dense_nbytes(self) -> int:
        """Bytes of a message in which every number travels, frame included."""
        return self._head_nbytes + sum(map(section_bytes, self.dense))

    @property
    def _head_nbytes(self) -> int:
        return FRAME_BYTES + (whole_bytes(len(self.specs)) if self.choosing else 0)

    @cached_property
    def dense(self) -> tuple[PartSpec, ...]:
        """The structure of rounds in which every number travels, such as EF21's first."""
        kind = Kind(accumulation_dtype(self.dtype))
        return tuple(PartSpec(spec.d, spec.d, kind) for spec in self.specs)

    @cached_property
    def silent(self) -> tuple[PartSpec, ...]:
        """The structure of rounds in which nothing travels."""
        kind = Kind(accumulation_dtype(self.dtype), listed=True)
        return tuple(PartSpec(spec.d, 0, kind) for spec in self.specs)

    def recognise(self, specs: tuple[PartSpec, ...], digest: int) -> tuple[tuple[PartSpec, ...], Flags]:
        """How a message of this structure travels under this schema: its structure there, and its flags.

        Raises:
            ValueError: where it is none of this schema's.
        """
        if digest != self.digest:
            raise ValueError(
                f"the message's layout has digest {digest:#010x}, the schema's {self.digest:#010x}"
            )
        coded = tuple(map(adapted, specs)) if self.adaptive else specs
        if coded == self.specs:
            return coded, Flags(0)
        if specs == self.silent:
            return specs, Flags.SILENT
        if specs == self.dense:
            return specs, Flags.DENSE
        raise ValueError(
            f"the message does not have the structure of the schema: {_difference(coded, self.specs)}"
        )

    def specs_of(self, flags: Flags) -> tuple[PartSpec, ...]:
        """The structure that a frame's flags announce."""
        if Flags.SILENT in flags:
            return self.silent
        return self.dense if Flags.DENSE in flags else self.specs

    def require(self, specs: tuple[PartSpec, ...]) -> None:
        """Refuse the structure that a message describes unless it is one of this schema's."""
        if specs not in (self.specs, self.silent, self.dense):
            raise WireError(f"the message is of another sender: {_difference(specs, self.specs)}")


def _difference(found: Sequence[PartSpec], expected: Sequence[PartSpec]) -> str:
    if len(found) != len(expected):
        return f"it has {len(found)} segments where {len(expected)} are expected"
    for number, (have, want) in enumerate(zip(found, expected, strict=True)):
        if have != want:
            return f"segment {number} is {have}, expected is {want}"
    return "they are equal"


def max_nbytes(layout: Layout, compressor: Compressor, dtype: torch.dtype = torch.float32) -> int:
    """Bytes of the largest message that a sender makes between ends that share a :class:`Schema`.

    Example:
        >>> import laconic
        >>> max_nbytes(laconic.Layout.flat(1_000_000), laconic.TopK(0.01))
        50723
    """
    return Schema.of(layout, compressor, dtype).max_nbytes
