"""Addition of kept coordinates to a vector, in a fixed order."""

from typing import Any

import torch
from torch import Tensor

from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads
from laconic.kernels.reference.scatter import scatter_add_reference

_WORTH = 1 << 12
"""Additions from which on compiled loops are worth their loading."""
_REALS = (torch.float32, torch.float64)


def scatter_add_(out: Tensor, positions: Tensor, values: Tensor) -> None:
    """``out[..., positions] += values`` in place, for n nodes one after another.

    Where several nodes hold the same position they are added in ascending order of nodes, so the sum
    is the same wherever it is formed.

    Args:
        out: (..., d).
        positions: int64 (..., n, k) in [0, d), distinct along the last dimension.
        values: (..., n, k), dtype of out.

    Raises:
        IndexError: for a position outside [0, d); RuntimeError where PyTorch finds it.

    Example:
        >>> import torch
        >>> out = torch.zeros(4)
        >>> scatter_add_(out, torch.tensor([[0, 3], [1, 3]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> out
        tensor([1., 3., 0., 6.])
    """

    def compiled(cpu: Any) -> None:
        rows = out.numel() // out.shape[-1]
        cpu.add_rows(
            out.detach().view(rows, -1).numpy(),
            positions.reshape(rows, *positions.shape[-2:]).contiguous().numpy(),
            values.detach().reshape(rows, *values.shape[-2:]).contiguous().numpy(),
            get_threads(),
        )

    real = out.dtype in _REALS and out.is_contiguous()
    worth = positions.numel() >= _WORTH and out.device.type == "cpu" and values.dtype == out.dtype
    dispatch(
        "scatter",
        compiled if real and worth else None,
        lambda: scatter_add_reference(out, positions, values),
        gpu=(lambda gpu: gpu.scatter_add_(out, positions, values)) if real else None,
        tensor=out,
    )
