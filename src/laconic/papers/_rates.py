"""Where EF21's rates can be seen: a function without a minimiser, runs with what theorems speak of, fits."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.feedback import Feedback, Sender
from laconic.lab._problem import Problem, mean_over_nodes
from laconic.lab._simulation import Simulation
from laconic.lab._smoothness import Smoothness

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
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
        """Dimension of x."""
        return self.centres.shape[1]

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.centres.shape[0]

    @cached_property
    def smoothness(self) -> Smoothness:
        """q, for every f_i and for f."""
        return Smoothness(L=self.q, L_pooled=self.q, L_nodes=(self.q,) * self.nodes)

    @property
    def L(self) -> float:
        """Smoothness of f."""
        return self.q

    @property
    def L_tilde(self) -> float:
        """Smoothness of the f_i, root of the mean square."""
        return self.q

    @property
    def L_nodes(self) -> tuple[float, ...]:
        """Smoothness of every f_i."""
        return self.smoothness.L_nodes

    @property
    def mu(self) -> None:
        """None: there is no minimiser."""
        return

    @property
    def exponent(self) -> float:
        """Of t in ``|grad f(x^t)|^2``, for gradient descent far out."""
        return -(2 * self.q + 2) / (self.q + 2)

    def loss(self, x: Tensor) -> Tensor:
        """f at x, (..., d) -> (...)."""
        return self._radii(x).pow(-self.q / 2).mean(dim=-1)

    def gradients(self, x: Tensor) -> Tensor:
        """The gradient of every f_i at x, (..., d) -> (..., nodes, d)."""
        away = x[..., None, :] - self.centres
        return -self.q * self._radii(x).pow(-self.q / 2 - 1)[..., None] * away

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of f at x, (..., d) -> (..., d)."""
        return mean_over_nodes(self.gradients(x))

    def node_gradient(self, i: int, x: Tensor) -> Tensor:
        """The gradient of f_i at one point, (d,) -> (d,)."""
        return self.gradients(x)[i]

    def _radii(self, x: Tensor) -> Tensor:
        return 1 + ((x[..., None, :] - self.centres) ** 2).sum(dim=-1)


@dataclass(frozen=True)
class Followed:
    """A run with what the theorems speak of, one entry a round t = 0..T.

    Args:
        norm2: ``|grad f(x^t)|^2``.
        loss: ``f(x^t)``.
        G: ``(1/n) sum |g_i^t - grad f_i(x^t)|^2``.
    """

    norm2: Array
    loss: Array
    G: Array

    @property
    def mean(self) -> Array:
        """Means of ``|grad f|^2`` over t = 0..T-1, for T = 1, 2, ..."""
        means: Array = np.cumsum(self.norm2) / np.arange(1, len(self.norm2) + 1)
        return means

    @property
    def least(self) -> Array:
        """The smallest of the first T squares, for T = 1, 2, ..."""
        least: Array = np.minimum.accumulate(self.norm2)
        return least


def follow(problem: Problem, feedback: Feedback, stepsize: float, rounds: int, x0: Tensor) -> Followed:
    """Run a method that remembers estimates h_i of the gradients, as EF21, for T rounds.

    Args:
        problem: what to minimise.
        feedback: EF21, EF21+ or a relative, whose nodes remember one estimate each.
        stepsize: the stepsize.
        rounds: T.
        x0: the start, (d,).
    """
    simulation = Simulation(
        problem, feedback, x0[None].clone(), torch.tensor([stepsize], dtype=torch.float64), torch.tensor([0])
    )
    norm2, loss, G = (np.empty(rounds + 1) for _ in range(3))
    for t in range(rounds + 1):
        gradients = problem.gradients(simulation.x)
        norm2[t] = float((mean_over_nodes(gradients) ** 2).sum())
        loss[t] = float(problem.loss(simulation.x))
        simulation.advance(gradients)
        G[t] = float(((_memory(simulation.sender) - gradients) ** 2).sum(dim=-1).mean())
    return Followed(norm2, loss, G)


def _memory(sender: Sender) -> Tensor:
    """What the nodes remember, (runs, nodes, d): the one tensor of their state."""
    (memory,) = (value for value in sender.state_dict().values() if isinstance(value, Tensor))
    return memory


def power(values: Array, share: float = 0.1) -> float:
    """The exponent p of ``values[T - 1] ~ T^p``, by least squares on logarithms.

    T runs from ``share`` of the length to its end, evenly in log T.
    """
    T = np.unique(np.geomspace(max(1.0, share * len(values)), len(values), 200).round().astype(np.int64))
    return float(np.polyfit(np.log(T), np.log(values[T - 1]), 1)[0])


def factor(values: Array, down_to: float = 1e-9) -> float:
    """The factor per round at which values fall, by least squares on logarithms.

    The first fifth, and what lies below ``down_to`` times the first value, where rounding begins, are
    left out.
    """
    end = int(np.argmax(values < down_to * values[0])) or len(values)
    t = np.arange(end // 5, end)
    return float(np.exp(np.polyfit(t, np.log(values[t]), 1)[0]))


def worst_step(L: float, stepsize: float, states: int, seed: int = 0) -> dict[str, float]:
    """The largest one-step ratios of the two Lyapunov functions of `tight_rate`, over random states.

    Quadratics in the plane with curvatures 1 and L along random axes; Top-1, whose contraction is 1/2.
    EF14: ``|x - x* - e|^2 + |e|^2 / sqrt(eps)``; EF21: ``|g - h|^2 + sqrt(eps) |g|^2``.

    Args:
        L: the larger curvature.
        stepsize: the stepsize.
        states: how many are drawn for each method.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    root = np.sqrt(0.5)
    angle = draws.uniform(0, np.pi, states)
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    z, e = draws.standard_normal((2, states, 2))
    # The worst states lie near to eigenvectors, with both parts nearly parallel: half of the draws are there.
    near = slice(0, states // 2)
    sides = np.where(draws.random((states, 1)) < 0.5, axis, axis[:, ::-1] * (-1, 1))
    blur = 10.0 ** draws.uniform(-4, 0, (states, 1))
    z[near] = (sides + blur * z)[near]
    e[near] = (draws.uniform(-3, 3, (states, 1)) * sides + blur * e)[near]

    def slope(x: Array) -> Array:
        along: Array = x + (L - 1) * (x * axis).sum(axis=-1, keepdims=True) * axis
        return along

    def square(x: Array) -> Array:
        total: Array = (x**2).sum(axis=-1)
        return total

    def dropped(x: Array) -> Array:
        kept = np.abs(x[:, :1]) >= np.abs(x[:, 1:])
        rest: Array = x * np.concatenate([~kept, kept], axis=-1)
        return rest

    g = slope(z + e)
    ef14 = square(z - stepsize * g) + square(dropped(e + stepsize * g)) / root
    # z and e again, now as gradient and estimate.
    new = z - stepsize * slope(e)
    ef21 = square(dropped(new - e)) + root * square(new)
    return {
        "EF14": float((ef14 / (square(z) + square(e) / root)).max()),
        "EF21": float((ef21 / (square(z - e) + root * square(z))).max()),
    }
