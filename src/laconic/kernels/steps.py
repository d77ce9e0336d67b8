"""What one compression reads, number by number: rows of a vector, or of its difference to a memory.

Error feedback compresses the difference of a vector and a memory; a loop that reads both forms no difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch

T = TypeVar("T")

_LONG = 1024
"""Rows from this length on go through compiled loops; for many shorter ones PyTorch is as fast."""
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Step:
    """Compress ``x``, or ``x - memory``.

    Args:
        x: (..., d), floating point.
        memory: (..., d), in the accumulation dtype.

    Example:
        >>> Step(torch.tensor([3.0, 5.0]), memory=torch.tensor([1.0, 1.0])).numbers()
        tensor([2., 4.])
    """

    x: Tensor
    memory: Tensor | None = None

    def numbers(self) -> Tensor:
        """What is compressed: (..., d) in the accumulation dtype; x itself where nothing is to be done."""
        x = self.x if self.memory is None else self.x - self.memory
        return x if x.dtype == torch.float64 else x.to(torch.float32)

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
    def on_device(self) -> bool:
        """Whether the kernels for GPUs take it: contiguous tensors of the dtypes that fit."""
        memory, x = self.memory, self.x
        return x.is_contiguous() and (
            memory is None
            or (memory.is_contiguous() and memory.dtype == self.dtype and memory.shape == x.shape)
        )

    @property
    def compiled(self) -> bool:
        """Whether the loops for CPUs take it: long contiguous rows of one width."""
        memory, x = self.memory, self.x
        if x.dtype not in _DTYPES or self.d < _LONG or x.device.type != "cpu" or not x.is_contiguous():
            return False
        return memory is None or (
            memory.device.type == "cpu"
            and memory.is_contiguous()
            and memory.dtype == self.dtype
            and memory.shape == x.shape
        )


def dispatch_step(
    name: str,
    step: Step,
    cpu: Callable[[Any], T],
    plain: Callable[[], T],
    gpu: Callable[[Any], T] | None = None,
) -> T:
    """As :func:`laconic.kernels._dispatch.dispatch`, where the loops and kernels take every fitting step."""
    return dispatch(
        name, cpu if step.compiled else None, plain, gpu=gpu if step.on_device else None, tensor=step.x
    )
