"""Search for the worst step of EF14 and EF21 on one node, against the tight rate."""

import numpy as np

from laconic.lab._types import Array


def worst_step(L: float, stepsize: float, states: int, seed: int = 0) -> dict[str, float]:
    """The largest one-step ratios of the two Lyapunov functions of ``tight_rate``, over random states.

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
