"""What the lab asks of a problem, and how points are handed to one."""

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch

from laconic.lab._smoothness import Smoothness

Array = npt.NDArray[np.float64]


class Problem(Protocol):
    """A finite sum ``f(x) = (1/nodes) sum_i f_i(x)`` on R^d, one f_i per node.

    All values are float64 on the CPU. Points come in batches: x has shape (..., d), every leading
    index is a point of its own, and its results do not depend on the other points of the batch.
    A point that has diverged gives inf or NaN without a warning; stopping there is the caller's choice.
    """

    @property
    def d(self) -> int:
        """Dimension of x."""
        ...

    @property
    def nodes(self) -> int:
        """Number n of nodes."""
        ...

    @property
    def L(self) -> float:
        """Smoothness constant of f, in the papers' convention (see `Smoothness.L_pooled`)."""
        ...

    @property
    def L_tilde(self) -> float:
        """Root of the mean square of `L_nodes`."""
        ...

    @property
    def L_nodes(self) -> tuple[float, ...]:
        """Smoothness constant of every f_i."""
        ...

    @property
    def smoothness(self) -> Smoothness:
        """All smoothness constants, the exact one of f included."""
        ...

    @property
    def mu(self) -> float | None:
        """Polyak-Lojasiewicz constant of f: ``|grad f(x)|^2 >= 2 mu (f(x) - min f)``; None if not known."""
        ...

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """f at x, (..., d) -> (...)."""
        ...

    def gradients(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient of every f_i at x, (..., d) -> (..., nodes, d)."""
        ...

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient of f at x, (..., d) -> (..., d): the mean of `gradients` over the nodes."""
        ...

    def node_gradient(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The gradient of f_i alone at one point, (d,) -> (d,), without anything of the other nodes."""
        ...


def as_points(x: torch.Tensor, d: int) -> tuple[Array, tuple[int, ...]]:
    """Points (..., d) as a contiguous float64 array (R, d), and the leading shape.

    Raises:
        TypeError: x is not a real-valued tensor.
        ValueError: the last dimension is not d, or x is not on the CPU.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}; torch.as_tensor(x) makes one")
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"x must be real, got {x.dtype}; float64 is expected, other real types are upcast")
    if x.device.type != "cpu":
        raise ValueError(f"x is on {x.device}; the lab's problems compute on the CPU, pass x.cpu()")
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(f"x must have shape (..., {d}), got {tuple(x.shape)}")
    array = cast("Array", x.detach().to(torch.float64).numpy())
    return np.ascontiguousarray(array.reshape(-1, d)), tuple(x.shape[:-1])


def as_point(x: torch.Tensor, d: int) -> Array:
    """One point (d,) as a float64 array; raises as `as_points` does."""
    points, lead = as_points(x, d)
    if lead:
        raise ValueError(f"one point of shape ({d},) is needed, got {tuple(x.shape)}")
    return cast("Array", points[0])


def check_node(i: int, nodes: int) -> int:
    """The index i, if it names a node; IndexError if not."""
    if not 0 <= i < nodes:
        raise IndexError(f"node {i} does not exist: the problem has nodes 0 to {nodes - 1}")
    return i


def on_points(x: torch.Tensor, d: int, function: Callable[[Array], Array]) -> torch.Tensor:
    """Apply ``function``, (R, d) -> (R, ...), to points of any leading shape."""
    points, lead = as_points(x, d)
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run is a result, not an accident
        values = function(points)
    return torch.from_numpy(values.reshape((*lead, *values.shape[1:])))


def mean_over_nodes(gradients: torch.Tensor) -> torch.Tensor:
    """The mean over dim -2, nodes added in ascending order, so that no batch shape changes a bit."""
    total = gradients[..., 0, :].clone()
    for i in range(1, gradients.shape[-2]):
        total += gradients[..., i, :]
    return total.div_(gradients.shape[-2])
