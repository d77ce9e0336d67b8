"""Abstract base of the lab's problems: finite sums over nodes, evaluated at batches of points."""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
import torch

from laconic.lab._problem import mean_over_nodes
from laconic.lab._smoothness import Smoothness
from laconic.lab._types import Array


class FiniteSum(ABC):
    """A sum ``f(x) = (1/nodes) sum_i f_i(x)`` on R^d, as :class:`laconic.lab.Problem` describes it.

    A subclass computes with NumPy, in float64, at points (R, d): ``_losses`` (R,), ``_gradients``
    (R, nodes, d), and ``_node_gradient`` of one node at one point (d,).
    """

    @property
    @abstractmethod
    def d(self) -> int:
        """Dimension of x."""

    @property
    @abstractmethod
    def nodes(self) -> int:
        """Number of nodes."""

    @property
    @abstractmethod
    def smoothness(self) -> Smoothness:
        """All smoothness constants."""

    @abstractmethod
    def _losses(self, points: Array) -> Array: ...

    @abstractmethod
    def _gradients(self, points: Array) -> Array: ...

    @abstractmethod
    def _node_gradient(self, i: int, point: Array) -> Array: ...

    @property
    def L(self) -> float:
        """Smoothness constant of f in the papers' convention: that of all rows pooled, if there are rows."""
        return self.smoothness.L_pooled

    @property
    def L_tilde(self) -> float:
        """Root of the mean square of ``L_nodes``."""
        return self.smoothness.L_tilde

    @property
    def L_nodes(self) -> tuple[float, ...]:
        """Smoothness constant of every f_i."""
        return self.smoothness.L_nodes

    @property
    def mu(self) -> float | None:
        """Polyak-Lojasiewicz constant of f; None if not known."""
        return None

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """f at x, (..., d) -> (...), float64.

        Raises:
            TypeError: x is not a real tensor.
            ValueError: x does not have shape (..., d), or is not on the CPU.
        """
        points, lead = _as_points(x, self.d)
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged run is a result, not an accident
            return torch.from_numpy(self._losses(points).reshape(lead))

    def gradients(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient of every f_i at x, (..., d) -> (..., nodes, d), float64; raises as ``loss`` does."""
        points, lead = _as_points(x, self.d)
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(self._gradients(points).reshape(*lead, self.nodes, self.d))

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient of f at x, (..., d) -> (..., d), float64; raises as ``loss`` does."""
        return mean_over_nodes(self.gradients(x))

    def node_gradient(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The gradient of f_i alone at one point, (d,) -> (d,), float64, from the node's own data.

        Raises:
            IndexError: there is no node i.
            TypeError, ValueError: as ``loss`` does.
        """
        points, lead = _as_points(x, self.d)
        if lead:
            raise ValueError(f"one point of shape ({self.d},) is needed, got {tuple(x.shape)}")
        if not 0 <= i < self.nodes:
            raise IndexError(f"node {i} does not exist: the problem has nodes 0 to {self.nodes - 1}")
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(self._node_gradient(i, points[0]))


def _as_points(x: torch.Tensor, d: int) -> tuple[Array, tuple[int, ...]]:
    """Points (..., d) as a contiguous float64 array (R, d), and the leading shape."""
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
