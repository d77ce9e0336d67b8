"""A nonconvex problem without a minimiser, on which EF21's O(1/T) rate is nearly attained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.lab._finite_sum import FiniteSum
from laconic.lab._smoothness import Smoothness
from laconic.lab._types import Array


@dataclass(frozen=True)
class Slope(FiniteSum):
    """Functions ``f_i(x) = (1 + |x - c_i|^2)^(-q/2)``, not convex, infimum 0, which no point attains.

    Every f_i is q-smooth: at distance r from c_i the Hessian has the eigenvalues ``-q (1 + r^2)^(-q/2-1)``
    and ``q ((q + 1) r^2 - 1) (1 + r^2)^(-q/2-2)``, both within [-q, q] for q <= 1. Gradient descent drifts
    away for ever: far out ``|grad f|^2`` falls like ``t^(-(2 q + 2) / (q + 2))``, which comes near to
    ``1 / t`` for small q; so the exponent of Theorem 1 is nearly attained, by the smallest gradient too.

    Args:
        centres: the c_i, (nodes, d) float64.
        q: how fast the functions fall, in (0, 1].

    Example:
        >>> problem = Slope(torch.zeros(1, 2, dtype=torch.float64), q=0.5)
        >>> problem.loss(torch.zeros(2, dtype=torch.float64))
        tensor(1., dtype=torch.float64)
    """

    centres: Tensor
    q: float

    @property
    def d(self) -> int:
        return self.centres.shape[1]

    @property
    def nodes(self) -> int:
        return self.centres.shape[0]

    @property
    def smoothness(self) -> Smoothness:
        return Smoothness(L=self.q, L_pooled=self.q, L_nodes=(self.q,) * self.nodes)

    @property
    def exponent(self) -> float:
        """The exponent of t in ``|grad f(x^t)|^2``, for gradient descent far out."""
        return -(2 * self.q + 2) / (self.q + 2)

    def _losses(self, points: Array) -> Array:
        losses: Array = self._radii(self._away(points)).pow(-self.q / 2).mean(dim=-1).numpy()
        return losses

    def _gradients(self, points: Array) -> Array:
        away = self._away(points)
        gradients: Array = (-self.q * self._radii(away).pow(-self.q / 2 - 1)[..., None] * away).numpy()
        return gradients

    def _node_gradient(self, i: int, point: Array) -> Array:
        gradient: Array = self._gradients(point[None])[0, i]
        return gradient

    def _away(self, points: Array) -> Tensor:
        return torch.from_numpy(points)[:, None, :] - self.centres

    def _radii(self, away: Tensor) -> Tensor:
        return 1 + (away**2).sum(dim=-1)
