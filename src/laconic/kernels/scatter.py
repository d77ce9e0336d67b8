"""Adding kept coordinates to a vector, in a fixed order."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._choice import compiled_or_plain, on_gpu
from laconic.kernels._cpu.threads import get_threads

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
    if out.dtype in _REALS and out.is_contiguous() and (gpu := on_gpu(out)) is not None:
        gpu.scatter_add_(out, positions, values)
        return
    if (
        positions.numel() < _WORTH
        or out.device.type != "cpu"
        or out.dtype not in _REALS
        or values.dtype != out.dtype
        or not out.is_contiguous()
    ):
        scatter_add_plainly_(out, positions, values)
        return
    rows = out.numel() // out.shape[-1]
    compiled_or_plain(
        "scatter",
        lambda loops: loops.add_rows(
            out.detach().view(rows, -1).numpy(),
            positions.reshape(rows, *positions.shape[-2:]).contiguous().numpy(),
            values.detach().reshape(rows, *values.shape[-2:]).contiguous().numpy(),
            get_threads(),
        ),
        lambda: scatter_add_plainly_(out, positions, values),
    )


def scatter_add_plainly_(out: Tensor, positions: Tensor, values: Tensor) -> None:
    """As :func:`scatter_add_`, in plain PyTorch on any device."""
    if out.device.type == "cpu":
        # The CPU kernel walks a row's indices in order; a test holds it against the loop below.
        out.scatter_add_(-1, positions.flatten(-2), values.flatten(-2))
        return
    for node in range(positions.shape[-2]):
        out.scatter_add_(-1, positions[..., node, :], values[..., node, :])


def add_nodes_into(
    memory: Tensor,
    positions: Sequence[Tensor],
    values: Sequence[Tensor],
    weights: Sequence[float],
    out: Tensor | None = None,
    scale: float = 1.0,
    *,
    commit: bool = True,
) -> None:
    """Add all nodes' weighted numbers to a vector, and write the sum where it is wanted, in one pass.

    ``memory[p] <- fl(memory[p] + fl(w_i v))`` for nodes i in ascending order, the weight rounded to
    memory's dtype; then ``out <- fl(memory scale)``, rounded to out's dtype.

    Args:
        memory: (D,), contiguous, float32 or float64.
        positions: of each node int64 (k_i,), ascending, in [0, D).
        values: of each node (k_i,), in memory's dtype.
        weights: of each node.
        out: (D,), contiguous, or None.
        scale: what out is multiplied with.
        commit: whether memory changes. Where it does not, call again without out to change it later.

    Raises:
        ValueError: for another shape or dtype than said above.
        IndexError: for positions outside the vector or out of order; what fitted has been added.

    Example:
        >>> memory, out = torch.ones(4), torch.empty(4, dtype=torch.bfloat16)
        >>> two = [torch.tensor([0, 3]), torch.tensor([3])]
        >>> add_nodes_into(memory, two, [torch.tensor([2.0, 4.0]), torch.tensor([6.0])], [0.5, 0.5], out)
        >>> out
        tensor([2., 1., 1., 6.], dtype=torch.bfloat16)
    """
    _check(memory, positions, values, weights, out)
    alike = len({len(part) for part in positions}) == 1
    if out is not None and commit and scale == 1.0 and alike and (gpu := on_gpu(memory)) is not None:
        gpu.scatter_add_into(memory, torch.stack([*positions]), torch.stack([*values]), weights, out)
        return
    plain = memory.device.type != "cpu" or (out is not None and not _writable(out, memory.dtype))
    if plain or memory.numel() == 0:
        add_nodes_plainly(memory, positions, values, weights, out, scale, commit=commit)
        return
    compiled_or_plain(
        "scatter",
        lambda loops: loops.add_nodes(
            memory.detach().numpy(),
            [part.contiguous().numpy() for part in positions],
            [part.detach().contiguous().numpy() for part in values],
            weights,
            commit,
            _if(out, memory.dtype, memory.dtype),
            _if(out, torch.bfloat16, torch.int16),
            scale,
            get_threads(),
        ),
        lambda: add_nodes_plainly(memory, positions, values, weights, out, scale, commit=commit),
    )


def add_nodes_plainly(
    memory: Tensor,
    positions: Sequence[Tensor],
    values: Sequence[Tensor],
    weights: Sequence[float],
    out: Tensor | None = None,
    scale: float = 1.0,
    *,
    commit: bool = True,
) -> None:
    """As :func:`add_nodes_into`, in plain PyTorch on any device."""
    total = memory if commit else memory.clone()
    for places, numbers, weight in zip(positions, values, weights, strict=True):
        total.scatter_add_(0, places, numbers * weight)
    if out is not None:
        out.copy_(total * scale)


def _writable(out: Tensor, dtype: torch.dtype) -> bool:
    return out.dtype == dtype or (out.dtype == torch.bfloat16 and dtype == torch.float32)


def _if(out: Tensor | None, dtype: torch.dtype, seen: torch.dtype) -> npt.NDArray[np.generic]:
    """``out`` as a numpy array where it has this dtype, else an empty one."""
    if out is None or out.dtype != dtype:
        return torch.empty(0, dtype=seen).numpy()
    return out.detach().view(seen).numpy()


def _check(
    memory: Tensor,
    positions: Sequence[Tensor],
    values: Sequence[Tensor],
    weights: Sequence[float],
    out: Tensor | None,
) -> None:
    if memory.dim() != 1 or memory.dtype not in _REALS or not memory.is_contiguous():
        raise ValueError(
            f"memory must be a contiguous vector of float32 or float64, got {tuple(memory.shape)} "
            f"{memory.dtype}"
        )
    if not len(positions) == len(values) == len(weights):
        raise ValueError(
            f"got positions of {len(positions)} nodes, values of {len(values)} and {len(weights)} weights"
        )
    for node, (places, numbers) in enumerate(zip(positions, values, strict=True)):
        fits = places.dim() == 1 and places.shape == numbers.shape and places.dtype == torch.int64
        if not fits or numbers.dtype != memory.dtype:
            raise ValueError(
                f"node {node}: positions must be int64 (k,) and values {memory.dtype} (k,), got "
                f"{tuple(places.shape)} {places.dtype} and {tuple(numbers.shape)} {numbers.dtype}"
            )
    if out is not None and (out.shape != memory.shape or not out.is_contiguous()):
        raise ValueError(
            f"out must be contiguous, of shape {tuple(memory.shape)} as memory, got {tuple(out.shape)}"
        )
