"""Consistency of declared constants: "On Biased Compression", Theorem 6."""

import math

from laconic.compressors import Constants
from laconic.testing._report import CompressorError

_TOLERANCE = 1e-9


def check_constants(name: str, c: Constants, d: int) -> None:
    """Refuse constants that contradict each other, or are weaker than what the others imply."""
    declared = {
        "alpha": c.alpha,
        "beta": c.beta,
        "gamma": c.gamma,
        "delta": c.delta,
        "zeta": c.zeta,
    }
    for key, value in declared.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise CompressorError(
                f"{name}: declared constants: {key} = {value} at d = {d} is not positive and finite"
            )
    if (c.alpha is not None or c.gamma is not None) and c.beta is None:
        raise CompressorError(f"{name}: declared constants: alpha or gamma without beta at d = {d}")
    for statement, small, large in _relations(c):
        if small > large * (1 + _TOLERANCE):
            raise CompressorError(
                f"{name}: declared constants: {statement} fails at d = {d}: {small:.9g} > {large:.9g} ({c})"
            )


def _relations(c: Constants) -> list[tuple[str, float, float]]:
    """What must hold, as (statement, smaller, larger)."""
    found: list[tuple[str, float, float]] = []
    if c.alpha is not None and c.beta is not None:
        found.append(("beta^2 >= alpha (B1)", c.alpha, c.beta**2))
    if c.gamma is not None and c.beta is not None:
        found.append(("beta >= gamma (B2)", c.gamma, c.beta))
        if c.alpha is not None:
            found.append(("alpha >= gamma^2, as B2 implies,", c.gamma**2, c.alpha))
            found.append(("gamma >= alpha / beta, as B1 implies,", c.alpha / c.beta, c.gamma))
        contraction = c.gamma * (2.0 - c.beta)
        if c.delta is not None and contraction > 0:
            found.append(("delta <= 1 / (gamma (2 - beta)), as B2 implies,", c.delta, 1.0 / contraction))
    if c.delta is not None:
        found.append(("delta >= 1, a contraction in (0, 1],", 1.0, c.delta))
        reach = 1.0 + math.sqrt(max(0.0, 1.0 - 1.0 / c.delta))
        if c.gamma is not None:
            found.append(("gamma <= 1 + sqrt(1 - 1/delta)", c.gamma, reach))
        if c.alpha is not None:
            found.append(("alpha <= (1 + sqrt(1 - 1/delta))^2", c.alpha, reach**2))
    if c.zeta is not None:
        found.append(("zeta >= 1 (U)", 1.0, c.zeta))
        if c.alpha is not None:
            found += [
                ("alpha <= zeta", c.alpha, c.zeta),
                ("alpha >= 1, as U implies,", 1.0, c.alpha),
            ]
        if c.beta is not None:
            found.append(("beta <= zeta, as U implies,", c.beta, c.zeta))
        if c.gamma is not None:
            found += [
                ("gamma >= 1, as U implies,", 1.0, c.gamma),
                ("gamma <= 1, since E C(x) = x,", c.gamma, 1.0),
            ]
        if c.delta is not None and c.zeta < 2.0:
            found.append(("delta <= 1 / (2 - zeta), as U implies,", c.delta, 1.0 / (2.0 - c.zeta)))
    return found
