"""What one compression reads, number by number, and where its decoded numbers go.

Error feedback compresses the difference of a vector and a memory, and adds what was decoded to the memory.
A loop that does all of it forms no difference and no decoded vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._cpu.threads import get_threads

_LONG = 1024
"""Rows from this length on go through compiled loops; for many shorter ones PyTorch is as fast."""
_SHARE = 1 << 16
"""Numbers that are worth a thread."""
_MASKS: dict[torch.dtype, npt.NDArray[Any]] = {
    torch.float32: np.array([0x7FFFFFFF], np.int32),
    torch.float64: np.array([0x7FFFFFFFFFFFFFFF], np.int64),
}


class Row(NamedTuple):
    """One row of a step for compiled loops; what is not there has no elements.

    Args:
        x: float32 or float64; empty where ``short`` is not.
        short: int16, the bits of bfloat16 numbers.
        memory: what is subtracted from x, in x's dtype.
        out: what decoded numbers are added to, in x's dtype.
        weight: what they are multiplied by first, of x's dtype.
        mask: one integer as wide as x that clears the sign.
        size: the row's length.
    """

    x: npt.NDArray[Any]
    short: npt.NDArray[np.int16]
    memory: npt.NDArray[Any]
    out: npt.NDArray[Any]
    weight: np.floating[Any]
    mask: npt.NDArray[Any]
    size: int


@dataclass(frozen=True, eq=False)
class Step:
    """Compress ``x``, or ``x - memory``; then ``out <- fl(out + fl(weight * decoded))`` where out is given.

    Args:
        x: (..., d), floating point.
        memory: (..., d), in the accumulation dtype.
        out: (..., d), in the accumulation dtype; may be x or the memory.
        weight: what decoded numbers are multiplied by.

    Example:
        >>> Step(torch.tensor([3.0, 5.0]), memory=torch.tensor([1.0, 1.0])).numbers()
        tensor([2., 4.])
    """

    x: Tensor
    memory: Tensor | None = None
    out: Tensor | None = None
    weight: float = 1.0

    def numbers(self) -> Tensor:
        """What is compressed: (..., d) in the accumulation dtype; x itself where nothing is to be done."""
        x = self.x if self.memory is None else self.x - self.memory
        return x if x.dtype == torch.float64 else x.to(torch.float32)

    def add(self, values: Tensor) -> None:
        """``out <- fl(out + fl(weight * values))`` in place, where out is given."""
        if self.out is not None:
            self.out.add_(values * self.weight)

    @property
    def dtype(self) -> torch.dtype:
        """The accumulation dtype of what is compressed, where it can go through compiled loops."""
        return torch.float64 if self.x.dtype == torch.float64 else torch.float32

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return self.x.shape[:-1]

    @property
    def d(self) -> int:
        """Length of a row."""
        return self.x.shape[-1]

    @property
    def compiled(self) -> bool:
        """Whether the loops for CPUs take it: long contiguous rows of one width."""
        if self.x.dtype not in (torch.float32, torch.float64, torch.bfloat16) or self.d < _LONG:
            return False
        own = [t for t in (self.memory, self.out) if t is not None]
        return all(t.device.type == "cpu" and t.is_contiguous() for t in (self.x, *own)) and all(
            t.dtype == self.dtype and t.shape == self.x.shape for t in own
        )

    def rows(self) -> Iterator[Row]:
        """The rows in order, sharing memory with the tensors; only where :attr:`compiled`."""
        short = self.x.dtype == torch.bfloat16
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        weight: np.floating[Any] = kind(self.weight)
        xs = self._rows_of(None if short else self.x, self.dtype)
        shorts = self._rows_of(self.x.view(torch.int16) if short else None, torch.int16)
        memories, outs = self._rows_of(self.memory, self.dtype), self._rows_of(self.out, self.dtype)
        for x, half, memory, out in zip(xs, shorts, memories, outs, strict=True):
            yield Row(x, half, memory, out, weight, _MASKS[self.dtype], self.d)

    def pieces(self, other: Tensor) -> Iterator[tuple["Step", Tensor]]:
        """The step and another tensor of x's shape in short pieces, for what knows no rows.

        In one piece where it is not :attr:`compiled`.
        """
        if not self.compiled:
            yield self, other
            return

        def of(tensor: Tensor, start: int) -> Tensor:
            return tensor.view(-1)[start : start + _SHARE]

        for start in range(0, self.x.numel(), _SHARE):
            memory = None if self.memory is None else of(self.memory, start)
            out = None if self.out is None else of(self.out, start)
            yield Step(of(self.x, start), memory, out, self.weight), of(other, start)

    def _rows_of(self, tensor: Tensor | None, dtype: torch.dtype) -> list[npt.NDArray[Any]]:
        count = self.x.numel() // self.d
        if tensor is None:
            return [torch.empty(0, dtype=dtype).numpy()] * count
        return list(tensor.detach().view(count, self.d).numpy())


def cuts(size: int) -> list[int]:
    """Where the shares of a row begin that threads take, at multiples of 4096."""
    shares = max(1, min(get_threads(), size // _SHARE))
    return [size * share // shares // 4096 * 4096 for share in range(shares)]
