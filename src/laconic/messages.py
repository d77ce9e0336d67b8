"""What travels, as tensors: the coordinates that a compressor kept, segment by segment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from laconic.grids import Grid, level_table, signed_table
from laconic.kernels import dequantize_blocks, scatter_add_
from laconic.sizes import Accounting, message_bits

_PIECE = 1 << 16
"""Numbers that are decoded together, so that nothing of a long row's length is made."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64; float32 for float32, float16 and bfloat16; TypeError for anything else."""
    if dtype == torch.float64:
        return torch.float64
    if dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.float32
    raise TypeError(f"laconic works on float16, bfloat16, float32 and float64 tensors, not on {dtype}")


@dataclass(frozen=True)
class Part:
    """What was kept of one segment, for a batch of rows.

    Without a grid ``values`` are the kept numbers themselves. With one they are codes, and the number
    is ``sign(code) * fl(level(|code|) * scale)``, or with ``low``, which goes with ``block``,
    ``sign(code) * fl(low + fl(level(|code|) * scale))``. Either is multiplied by ``factor`` when decoded.

    Args:
        d: length of the segment.
        values: (..., k): numbers of a floating-point dtype, or codes of ``grid``: integers, the library's own
            in int8 for up to 127 levels, int16 for up to 32767, else int32.
        dtype: dtype of the numbers; the accumulation dtype where they are codes.
        positions: int64 (..., k), ascending in [0, d); None where all are kept (k = d). Where the
            number kept varies by row, places that are not used stand last and hold d.
        count: int64 (..., 1), how many places are used; None where all are.
        grid: the levels of codes, or None.
        scale: in the accumulation dtype, (..., 1), or one for each ``block`` of places,
            (..., ceil(k / block)); or None.
        factor: what decoded numbers are multiplied by.
        seeded: whether the positions follow from shared randomness, so that they carry no information.
        low: what is added to scaled levels, of the shape of ``scale``; None: nothing.
        block: places that share a scale; None: all.
        cells: (length, count) where the first ``count`` positions lie in [0, length), the next ``count`` in
            [length, 2 length), and so on to the last cell, which may be shorter and hold fewer.
        origin: int64 (..., 4), the seed, round, node and segment of the draw whose permutation gives the
            positions; so a seed travels in their place.
    """

    d: int
    values: Tensor
    dtype: torch.dtype
    positions: Tensor | None = None
    count: Tensor | None = None
    grid: Grid | None = None
    scale: Tensor | None = None
    factor: float = 1.0
    seeded: bool = False
    low: Tensor | None = None
    block: int | None = None
    cells: tuple[int, int] | None = None
    origin: Tensor | None = None

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return self.values.shape[:-1]

    @property
    def k(self) -> int:
        """Number of places in a row."""
        return self.values.shape[-1]

    def decode(self) -> Tensor:
        """The kept numbers: (..., k) in the accumulation dtype."""
        if self.grid is None:
            numbers = self.values.to(accumulation_dtype(self.dtype))
        else:
            device = self.values.device
            if self.low is not None:
                assert self.scale is not None
                levels = level_table(self.grid, self.dtype, device)
                block = self.block or max(1, self.k)
                numbers = dequantize_blocks(self.values, levels, self.scale, self.low, block)
            else:
                # A product changes its sign with either factor, so signs may come first: one look-up does.
                levels = signed_table(self.grid, self.dtype, device)
                numbers = _looked_up(levels, self.values)
                if self.scale is not None:
                    numbers = numbers * self.scale
        return numbers if self.factor == 1.0 else numbers * self.factor

    def add_to(self, out: Tensor, weight: float | Tensor) -> None:
        """``out <- fl(out + fl(weight * number))`` in place; out is (..., d) and at least as wide."""
        block = self.block or 1
        size = max(1, _PIECE // block) * block
        if self.positions is None and self.values.dim() == 1 and self.k > size:
            for start, piece in self._pieces(size):
                piece.add_to(out[start : start + piece.d], weight)
            return
        numbers = self.decode().to(out.dtype)
        if not (isinstance(weight, float) and weight == 1.0):
            numbers = numbers * weight
        if self.positions is None:
            out += numbers
        elif self.count is None:
            scatter_add_(out, self.positions.unsqueeze(-2), numbers.unsqueeze(-2))
        else:
            wide = torch.nn.functional.pad(out, (0, 1))
            scatter_add_(wide, self.positions.unsqueeze(-2), numbers.unsqueeze(-2))
            out.copy_(wide[..., :-1])

    def _pieces(self, size: int) -> Iterator[tuple[int, "Part"]]:
        """A dense row in pieces that stay in cache while they are decoded, and where each starts."""
        for start in range(0, self.k, size):
            values = self.values[start : start + size]
            changed: dict[str, Any] = {"values": values, "d": len(values)}
            if self.block is not None:
                own = slice(start // self.block, (start + size) // self.block)
                changed |= {k: t[own] for k, t in (("scale", self.scale), ("low", self.low)) if t is not None}
            yield start, replace(self, **changed)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, by field; each is (..., something)."""
        fields = {
            "values": self.values,
            "positions": self.positions,
            "count": self.count,
            "scale": self.scale,
            "low": self.low,
            "origin": self.origin,
        }
        return {name: tensor for name, tensor in fields.items() if tensor is not None}


def _looked_up(levels: Tensor, codes: Tensor) -> Tensor:
    """The levels of codes, from the table of levels -L, ..., L."""
    flat = codes.reshape(-1)
    numbers = torch.empty(flat.shape, dtype=levels.dtype, device=levels.device)
    # Narrow codes are no indices and cannot be counted from -L; pieces of them are widened in the cache.
    wide = torch.promote_types(codes.dtype, torch.int32)
    size = _PIECE if flat.device.type == "cpu" else max(1, flat.numel())
    for start in range(0, flat.numel(), size):
        places = flat[start : start + size].to(wide, copy=True).add_(len(levels) // 2)
        torch.index_select(levels, 0, places, out=numbers[start : start + size])
    return numbers.view(codes.shape)


@dataclass(frozen=True)
class Message:
    """What one node, or each node of a batch, sends in one round.

    Args:
        parts: one for each segment of the layout, in its order.
        replaces: bool (..., parts), for methods that say of each part which of two things it is (EF21+:
            "this replaces the memory" instead of "add this to it"); None for all others.
        round: the sender's round.
        digest: the layout's 32-bit digest, 0 where there is none.

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

    parts: tuple[Part, ...]
    replaces: Tensor | None = None
    round: int = 0
    digest: int = 0

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions: empty for one node's message."""
        return self.parts[0].batch

    @property
    def d(self) -> int:
        """Length of the vector that the message stands for."""
        return sum(part.d for part in self.parts)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of ``dense()``: float64 if any part is, else float32."""
        dtypes = [accumulation_dtype(part.dtype) for part in self.parts]
        return reduce(torch.promote_types, dtypes)

    @property
    def nbytes(self) -> int:
        """Length of what :func:`laconic.pack` makes of it; of a batch, the sum over its messages."""
        return int(message_bits(self, "wire").sum()) // 8

    def bits(self, accounting: Accounting) -> Tensor:
        """Size of each row's message in bits: int64 (...); see :mod:`laconic.sizes` for the accountings."""
        return message_bits(self, accounting)

    def dense(self) -> Tensor:
        """The decoded vector, zeros where nothing was kept: (..., d) in the accumulation dtype."""
        out = torch.zeros(*self.batch, self.d, dtype=self.dtype, device=self.parts[0].values.device)
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
        if len(self.parts) > 1 and is_sparse(self):
            # All parts at once: a model has hundreds.
            numbers = torch.cat([part.decode() for part in self.parts], dim=-1).to(out.dtype) * weight
            scatter_add_(out, flat_positions(self).unsqueeze(-2), numbers.unsqueeze(-2))
            return
        offset = 0
        for part in self.parts:
            part.add_to(out[..., offset : offset + part.d], weight)
            offset += part.d

    def scaled(self, factor: float) -> "Message":
        """The message of ``factor`` times the decoded vector."""
        return replace(self, parts=tuple(replace(p, factor=p.factor * factor) for p in self.parts))

    def to(self, device: torch.device | str) -> "Message":
        """The message with its tensors on a device."""

        def moved(part: Part) -> Part:
            changed: dict[str, Any] = {name: t.to(device) for name, t in part.tensors().items()}
            return replace(part, **changed)

        replaces = None if self.replaces is None else self.replaces.to(device)
        return replace(self, parts=tuple(map(moved, self.parts)), replaces=replaces)

    def unbind(self) -> tuple["Message", ...]:
        """The messages of a batch, one for each index of the last leading dimension (the nodes).

        Raises:
            ValueError: for the message of a single node.
        """
        if not self.batch:
            raise ValueError("this is one node's message already; unbind() takes a batch apart")
        return tuple(self._node(j) for j in range(self.batch[-1]))

    def _node(self, node: int) -> "Message":
        def of_node(part: Part) -> Part:
            changed: dict[str, Any] = {name: t[..., node, :] for name, t in part.tensors().items()}
            return replace(part, **changed)

        replaces = None if self.replaces is None else self.replaces[..., node, :]
        return replace(self, parts=tuple(map(of_node, self.parts)), replaces=replaces)


def is_sparse(message: Message) -> bool:
    """Whether every part holds a fixed number of positions."""
    return all(part.positions is not None and part.count is None for part in message.parts)


def flat_positions(message: Message) -> Tensor:
    """The positions of a sparse message's parts, counted in the whole vector: int64 (..., k of all parts)."""
    places, offset = [], 0
    for part in message.parts:
        assert part.positions is not None
        places.append(part.positions + offset if offset else part.positions)
        offset += part.d
    return places[0] if len(places) == 1 else torch.cat(places, dim=-1)
