"""Protocol of a problem: a finite sum over nodes with gradients and smoothness constants."""

from typing import Protocol, cast

import numpy as np
import torch

from laconic.lab._smoothness import Smoothness
from laconic.lab._types import Array


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
        """Smoothness constant of f, in the papers' convention (see ``Smoothness.L_pooled``)."""
        ...

    @property
    def L_tilde(self) -> float:
        """Root of the mean square of ``L_nodes``."""
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
        """The gradient of f at x, (..., d) -> (..., d): the mean of ``gradients`` over the nodes."""
        ...

    def node_gradient(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The gradient of f_i alone at one point, (d,) -> (d,), without anything of the other nodes."""
        ...


def mean_over_nodes(gradients: torch.Tensor) -> torch.Tensor:
    """The mean over dim -2, nodes added in ascending order, so that no batch shape changes a bit."""
    total = gradients[..., 0, :].clone()
    for i in range(1, gradients.shape[-2]):
        total += gradients[..., i, :]
    return total.div_(gradients.shape[-2])


def squared_norms(vectors: torch.Tensor) -> Array:
    """``|v|^2`` of vectors (..., d) on the CPU, (...,).

    NumPy adds each row on one thread and in one order. PyTorch's sum depends on the number of threads and, of
    long vectors, on how many there are.
    """
    return _squared_norms(np.ascontiguousarray(vectors.numpy()))


def squared_norms_of_means(gradients: torch.Tensor) -> Array:
    """``|v|^2`` of the means over nodes of gradients (..., nodes, d) on the CPU, (...,); see above."""
    # Not by mean_over_nodes, whose operation for each node makes a round of short vectors 15 % longer.
    with np.errstate(over="ignore", invalid="ignore"):
        return _squared_norms(np.ascontiguousarray(gradients.numpy()).mean(axis=-2))


def _squared_norms(vectors: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run is a result, not an accident
        return cast("Array", np.square(vectors).sum(axis=-1))
