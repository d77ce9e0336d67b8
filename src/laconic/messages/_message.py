"""Messages: what a node sends in one round, as tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from laconic.formats import MessageFormat, group_formats
from laconic.messages._bits import Accounting, message_bits
from laconic.messages._group import Group, join_parts
from laconic.messages._nodes import add_nodes_
from laconic.messages._part import Part


@dataclass(frozen=True, init=False)
class Message:
    """What one node, or each node of a batch, sends in one round.

    Args:
        groups: the groups; or the parts of the segments of a vector in their order, which are then grouped.
        replaces: bool (..., S), for methods that say of each segment which of two things it is (EF21+:
            "this replaces the memory" instead of "add this to it"); None for all others.
        round: the sender's round.
        digest: 32 bits of a hash of layout and dtype, 0 where there is no layout.

    Example:
        >>> import laconic
        >>> message = laconic.TopK(2).compress(torch.tensor([[1.0, -5.0, 2.0, 0.5], [9.0, 1.0, 0.0, 3.0]]))
        >>> message.dense()
        tensor([[ 0., -5.,  2.,  0.],
                [ 9.,  0.,  0.,  3.]])
        >>> out = torch.zeros(4)
        >>> for one in message.unbind():
        ...     one.add_to(out, weight=0.5)
        >>> out
        tensor([ 4.5000, -2.5000,  1.0000,  1.5000])
    """

    groups: tuple[Group, ...]
    replaces: Tensor | None = None
    round: int = 0
    digest: int = 0

    def __init__(
        self,
        groups: Sequence[Group] | Sequence[Part],
        replaces: Tensor | None = None,
        round: int = 0,
        digest: int = 0,
    ) -> None:
        """Group the parts, where parts are given."""
        found = [one for one in groups if isinstance(one, Group)]
        if len(found) < len(groups):
            found = _grouped([one for one in groups if isinstance(one, Part)])
        object.__setattr__(self, "groups", tuple(found))
        object.__setattr__(self, "replaces", replaces)
        object.__setattr__(self, "round", round)
        object.__setattr__(self, "digest", digest)

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions: empty for one node's message."""
        return self.groups[0].batch

    @cached_property
    def format(self) -> MessageFormat:
        """The format of the message."""
        return MessageFormat(
            tuple(group.format for group in self.groups), self.digest, self.replaces is not None
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        """A read-only view of each segment's columns, in the layout's order."""
        pairs = chain.from_iterable(
            zip(group.format.places, group.parts(), strict=True) for group in self.groups
        )
        return tuple(part for _, part in sorted(pairs, key=lambda pair: pair[0]))

    @property
    def d(self) -> int:
        """Length of the vector that the message stands for."""
        return self.format.d

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of ``dense()``: float64 if that of any group is, else float32."""
        return self.format.dtype

    @property
    def device(self) -> torch.device:
        """Where the columns lie."""
        return self.groups[0].values.device

    @property
    def nbytes(self) -> int:
        """Length of what :func:`laconic.pack` makes of it; of a batch, the sum over its messages."""
        return int(self.bits("wire").sum()) // 8

    def bits(self, accounting: Accounting) -> Tensor:
        """Size of each row's message in bits: int64 (...).

        Args:
            accounting: "wire": the length of what :func:`laconic.pack` makes. "values": the papers'
                convention, 32 bits a number that is kept (16 for 16-bit numbers) or log2 of the number of
                symbols for its code, and 32 a scale. "entropy": as "values", and log2 C(d, k) bits for the
                positions unless they follow from a shared seed, and one bit for each flag.
        """
        flags = self.replaces is not None
        return message_bits(self.groups, self.format, self.batch, accounting, flags=flags)

    def dense(self) -> Tensor:
        """The decoded vector, zeros where nothing was kept: (..., d) in the accumulation dtype."""
        out = torch.zeros(*self.batch, self.d, dtype=self.dtype, device=self.device)
        self.add_to(out)
        return out

    def add_to(self, out: Tensor, weight: float | Tensor = 1.0) -> None:
        """``out <- fl(out + fl(weight * decoded))`` in place, with no dense tensor in between.

        Args:
            out: (..., d) with the message's leading dimensions, float32 or float64.
            weight: a number, or a tensor that broadcasts to (..., 1).

        Raises:
            ValueError: where out has another shape.
            TypeError: where out is narrower than the message's numbers.
        """
        if out.shape != (*self.batch, self.d):
            raise ValueError(
                f"the message decodes to shape {(*self.batch, self.d)}, but out has shape {tuple(out.shape)}"
            )
        if torch.promote_types(out.dtype, self.dtype) != out.dtype:
            raise TypeError(
                f"adding {self.dtype} numbers to a {out.dtype} tensor would round them; "
                f"accumulate in {self.dtype} and convert at the end"
            )
        if not self.batch and isinstance(weight, float):
            add_nodes_(out, [self.groups], [weight])
            return
        for group in self.groups:
            group.add_to(out, weight)

    def scaled(self, factor: float) -> "Message":
        """The message of ``factor`` times the decoded vector."""
        return Message(
            tuple(_scaled(group, factor) for group in self.groups), self.replaces, self.round, self.digest
        )

    def to(self, device: torch.device | str) -> "Message":
        """The message with its columns on a device; itself where they are there."""
        if self.device == torch.device(device):
            return self
        return self._mapped(lambda tensor: tensor.to(device))

    def unbind(self) -> tuple["Message", ...]:
        """The messages of a batch, one for each index of the last leading dimension (the nodes).

        Raises:
            ValueError: for the message of a single node.
        """
        if not self.batch:
            raise ValueError("this is one node's message already; unbind() takes a batch apart")
        return tuple(self._mapped(lambda t, j=j: t[..., j, :]) for j in range(self.batch[-1]))  # type: ignore[misc]

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Message":
        groups = tuple(
            group.with_tensors({name: change(tensor) for name, tensor in group.tensors().items()})
            for group in self.groups
        )
        replaces = None if self.replaces is None else change(self.replaces)
        return Message(groups, replaces, self.round, self.digest)


def _grouped(parts: Sequence[Part]) -> list[Group]:
    numbers = [
        place if p.origin is None else int(p.origin.reshape(-1, 4)[0, 3]) for place, p in enumerate(parts)
    ]
    formats = group_formats([part.format for part in parts], numbers=numbers)
    return [join_parts(one, [parts[place] for place in one.places]) for one in formats]


def _scaled(group: Group, factor: float) -> Group:
    factors = group.format.factors or (1.0,) * group.format.segments
    scaled = tuple(one * factor for one in factors)
    one = replace(group.format, factors=None if all(f == 1.0 for f in scaled) else scaled)
    return replace(group, format=one)
