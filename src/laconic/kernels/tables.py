"""Segments of vectors: tables of where they lie, and vectors given flat or as many tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._C._nn import flatten_dense_tensors, unflatten_dense_tensors

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

PIECE = 1024
"""Numbers that loops read at a time: few enough that all that is made of them stays in the first cache."""

_SEEN_AS: dict[torch.dtype, type[np.generic]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.bfloat16: np.int16,
    torch.float16: np.float16,
}
"""NumPy's dtype of as many bytes; NumPy has no bfloat16."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64; float32 for float32, float16 and bfloat16; TypeError for anything else."""
    if dtype == torch.float64:
        return torch.float64
    if dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.float32
    raise TypeError(f"laconic works on float16, bfloat16, float32 and float64 tensors, not on {dtype}")


def bounds_of(sizes: Integers) -> Integers:
    """int64 (S + 1,): where each of so many things of these sizes begins, and where the last ends.

    Example:
        >>> bounds_of(np.array([2, 3])).tolist()
        [0, 2, 5]
    """
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def columns_used(bounds: Integers, used: Integers, device: Any = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Of every used column in order: its segment, its number there, and the column itself.

    Args:
        bounds: (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``.
        used: (S,), of which only the first ones are used.
        device: of the results.
    """
    counts, starts = torch.from_numpy(used).to(device), torch.from_numpy(bounds[:-1]).to(device)
    segment = torch.arange(len(used), device=device).repeat_interleave(counts)
    number = torch.arange(len(segment), device=device) - (counts.cumsum(0) - counts)[segment]
    return segment, number, starts[segment] + number


@dataclass(frozen=True)
class SegmentTable:
    """The segments of a group, which are compressed, packed and added in one call.

    Args:
        starts: (S,) where each segment lies in the flat vector of its message.
        numels: (S,) their lengths, each >= 1.
        kept: (S,) the largest number of columns that each owns among the group's; all of dense ones.
        numbers: (S,) each segment's number in the whole layout, which keys its draws.

    Example:
        >>> table = SegmentTable((0, 10), (10, 5), (2, 1), (0, 1))
        >>> table.columns, table.bounds.tolist()
        (3, [0, 2, 3])
    """

    starts: tuple[int, ...]
    numels: tuple[int, ...]
    kept: tuple[int, ...]
    numbers: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Columns of all segments, K."""
        return int(self.bounds[-1])

    @cached_property
    def start_array(self) -> Integers:
        """``starts`` as int64 (S,)."""
        return np.array(self.starts, np.int64)

    @cached_property
    def numel_array(self) -> Integers:
        """``numels`` as int64 (S,)."""
        return np.array(self.numels, np.int64)

    @cached_property
    def kept_array(self) -> Integers:
        """``kept`` as int64 (S,)."""
        return np.array(self.kept, np.int64)

    @cached_property
    def number_array(self) -> Integers:
        """``numbers`` as int64 (S,)."""
        return np.array(self.numbers, np.int64)

    @cached_property
    def bounds(self) -> Integers:
        """int64 (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``."""
        return bounds_of(self.kept_array)

    @cached_property
    def offsets(self) -> Integers:
        """int64 (S + 1,): segment s has the coordinates from [s] to [s + 1] among those of all."""
        return bounds_of(self.numel_array)

    def blocks(self, block: int | None) -> Integers:
        """int64 (S + 1,): segment s owns the blocks of ``block`` columns from [s] to [s + 1]; None: one."""
        known: dict[int | None, Integers] = self.__dict__.setdefault("_blocks", {})
        if block not in known:
            each = np.ones_like(self.kept_array) if block is None else -(-self.kept_array // block)
            known[block] = bounds_of(each)
        return known[block]


class _Memory:
    """Memory at an address, which NumPy sees as an array without copying."""

    def __init__(self, address: int, size: int, kind: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (size,),
            "typestr": kind.str,
            "version": 3,
        }


@dataclass(frozen=True, eq=False)
class Vectors:
    """Segments of one dtype, wherever each lies: one array that spans them, and their starts.

    Compiled loops read and write ``array[starts[s] + i]``; so tensors need not be copied into a flat vector.
    What lies between the segments belongs to others and must not be touched.

    Args:
        array: one-dimensional; bfloat16 is seen as int16. On a device the tensor at the lowest address.
        starts: int64 (S,).
        dtype: of the tensors.
        owners: the tensors, which keep the memory alive: the flat one, or one a segment.
    """

    array: Any
    starts: Integers
    dtype: torch.dtype
    owners: tuple[Tensor, ...]

    @classmethod
    def flat(cls, vector: Tensor, starts: Integers) -> "Vectors":
        """Segments of a contiguous vector (d,)."""
        vector = vector.detach()
        if vector.device.type != "cpu":
            return cls(vector, starts, vector.dtype, (vector,))
        seen = vector.view(torch.int16) if vector.dtype == torch.bfloat16 else vector
        return cls(seen.numpy(), starts, vector.dtype, (vector,))

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Vectors":
        """Tensors of one dtype, one for each segment, where they lie; of strided ones a contiguous copy.

        Raises:
            ValueError: for tensors of several dtypes or devices.

        Example:
            >>> import torch
            >>> a, b = torch.zeros(3), torch.ones(2)
            >>> both = Vectors.of([a, b])
            >>> both.array[both.starts[1]] = 5.0
            >>> b
            tensor([5., 1.])
        """
        kinds = {(tensor.dtype, tensor.device.type) for tensor in tensors}
        if len(kinds) > 1:
            raise ValueError(
                f"the tensors of a bucket must have one dtype and device, got {sorted(map(str, kinds))}: "
                "give those of each dtype a bucket of their own"
            )
        kind = np.dtype(_SEEN_AS[tensors[0].dtype])
        tensors = [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]
        addresses = np.array([tensor.data_ptr() for tensor in tensors], np.int64)
        base = int(addresses.min())
        if tensors[0].device.type != "cpu":
            lowest = tensors[int(addresses.argmin())].detach()
            return cls(lowest, (addresses - base) // kind.itemsize, lowest.dtype, tuple(tensors))
        ends = addresses + np.array([tensor.numel() for tensor in tensors]) * kind.itemsize
        array = np.asarray(_Memory(base, (int(ends.max()) - base) // kind.itemsize, kind))
        return cls(array, (addresses - base) // kind.itemsize, tensors[0].dtype, tuple(tensors))

    @property
    def on_device(self) -> bool:
        """Whether they lie on a device, where only its kernels and the references read them."""
        return isinstance(self.array, Tensor)

    def segment(self, s: int, numel: int) -> Tensor:
        """Segment s as a tensor (numel,) that shares its memory."""
        start = int(self.starts[s])
        if self.on_device:
            whole = len(self.owners) == 1
            return self.array[start : start + numel] if whole else self.owners[s].detach().view(-1)[:numel]
        own = torch.from_numpy(self.array[start : start + numel])
        return own.view(self.dtype) if own.dtype != self.dtype else own


class Computed(Protocol):
    """Segments in main memory whose numbers are computed when they are asked for."""

    @property
    def numels(self) -> Integers:
        """int64 (S,), lengths of the segments."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers, float32 or float64."""

    def at(self, places: Sequence[int]) -> "Computed":
        """Some of the segments."""

    def write(self, out: Vectors) -> None:
        """Write the numbers."""


class Deferred(Protocol):
    """Numbers of some segments of a vector that have not been computed yet."""

    def write(self, out: "SegmentedVector") -> None:
        """Write the numbers where their segments lie in ``out``."""

    def subtract_from(self, parameters: Vectors, settings: npt.NDArray[np.float64]) -> None:
        """``parameters <- fl(fl(parameters decay) - fl(numbers rate))``.

        Args:
            parameters: all segments of the vector.
            settings: (S, 2), decay and rate of each.
        """


@dataclass(frozen=True, eq=False)
class SegmentedVector:
    """A vector (..., d) given flat, or as one tensor for each segment of its layout.

    Tensors of segments are read where they lie; only strided ones are copied.

    Args:
        flat: (..., d), or None.
        tensors: one a segment, in the layout's order, of one dtype; or None.
        computed: what the numbers of the layout's segments are computed from; ``flat`` is then a contiguous
            (d,) in main memory that they are written into where nothing computes them as it reads.
        deferred: of a vector that is written to: a list that gets the numbers in the place of ``flat``, where
            whoever would write them can defer that; else it stays empty.
    """

    flat: Tensor | None
    tensors: tuple[Tensor, ...] | None = None
    computed: Computed | None = None
    deferred: list[Deferred] | None = None

    @classmethod
    def of(cls, vector: "Tensor | Sequence[Tensor] | SegmentedVector") -> "SegmentedVector":
        """Of a flat tensor, or of a tensor for each segment; itself of one of these."""
        if isinstance(vector, SegmentedVector):
            return vector
        if isinstance(vector, Tensor):
            return cls(vector.detach())
        return cls(None, tuple(vector))

    @property
    def like(self) -> Tensor:
        """A tensor of the vector's dtype and device."""
        if self.flat is not None:
            return self.flat
        assert self.tensors is not None
        return self.tensors[0]

    @property
    def batch(self) -> torch.Size:
        """The leading dimensions."""
        return torch.Size() if self.flat is None else self.flat.shape[:-1]

    def vectors(self, places: Sequence[int], table: SegmentTable) -> Vectors | None:
        """The segments for compiled loops; None for batches and strides, which these do not take.

        Args:
            places: (S,) of the segments in the layout.
            table: where they lie in the flat vector.
        """
        if self.computed is not None:
            return self._written(self.computed.at(places), table.start_array)
        if self.flat is not None:
            row = self.flat.dim() == 1 and self.flat.is_contiguous()
            return Vectors.flat(self.flat, table.start_array) if row else None
        assert self.tensors is not None
        return Vectors.of([self.tensors[place] for place in places])

    def _written(self, computed: Computed, starts: Integers) -> Vectors:
        assert self.flat is not None
        vectors = Vectors.flat(self.flat, starts)
        computed.write(vectors)
        return vectors

    def segment(self, place: int, start: int, numel: int) -> Tensor:
        """One segment's numbers, (..., numel)."""
        if self.computed is not None:
            return self._written(self.computed.at([place]), np.array([start])).segment(0, numel)
        if self.flat is not None:
            return self.flat[..., start : start + numel]
        assert self.tensors is not None
        return self.tensors[place].detach().reshape(-1)

    def flattened(self) -> Tensor:
        """The flat vector (..., d)."""
        if self.computed is not None:
            self._written(self.computed, bounds_of(self.computed.numels)[:-1])
        for numbers in self.deferred or ():
            numbers.write(self)
        if self.flat is not None:
            return self.flat
        assert self.tensors is not None
        with torch.no_grad():
            return flatten_dense_tensors(list(self.tensors))

    def write(self, flat: Tensor) -> None:
        """Copy a flat vector (..., d) to where this one lies, rounded to its dtype."""
        if self.flat is not None:
            self.flat.copy_(flat.reshape(self.flat.shape))
            return
        assert self.tensors is not None
        with torch.no_grad():
            tensors = list(self.tensors)
            torch._foreach_copy_(tensors, list(unflatten_dense_tensors(flat, tensors)))

    def widened(self, dtype: torch.dtype) -> "SegmentedVector":
        """The same numbers in a wider dtype; itself where they are."""
        if self.like.dtype == dtype:
            return self
        if self.flat is not None:
            return SegmentedVector(self.flat.to(dtype))
        return SegmentedVector(self.flattened().to(dtype))
