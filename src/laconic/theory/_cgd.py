"""Compressed gradient descent on one node: ``x^{k+1} = x^k - eta C(grad f(x^k))``.

f is L-smooth and mu-strongly convex, and E_k = E f(x^k) - f*. Source: On Biased Compression for
Distributed Learning (Beznosikov, Horváth, Richtárik and Safaryan, 2023), Theorems 17 to 19, one for each
class of compressors. Two misprints of the published text are corrected here: the factor of Theorem 18
lacks mu, and the one-step factor of Theorem 19 carries an exponent k.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from laconic.theory import _checks


@dataclass(frozen=True)
class CGDRate:
    """A theorem on compressed gradient descent, made by ``cgd_b1``, ``cgd_b2`` or ``cgd_b3``.

    Attributes:
        compressor_class: "B1", "B2" or "B3", the class that the compressor was taken from.
        max_stepsize: the theorem speaks of stepsizes in [0, max_stepsize].
        best_stepsize: the stepsize with the smallest factor.
        complexity: rounds per factor 1/e of E_k at the best stepsize; E_k <= eps E_0 after
            ``complexity * log(1 / eps)`` rounds. The best factor is ``1 - 1 / complexity``.
        slope: minus the factor's derivative at eta = 0.
        bend: the factor's second-order coefficient, ``factor = 1 - slope eta + bend eta^2``.

    Example:
        >>> rate = cgd_b3(delta=4.0, L=2.0, mu=1.0)
        >>> rate.best_stepsize, rate.factor(), rate.complexity
        (0.5, 0.875, 8.0)
    """

    compressor_class: str
    max_stepsize: float
    best_stepsize: float
    complexity: float
    slope: float
    bend: float

    def factor(self, eta: float | None = None) -> float:
        """The q of ``E_{k+1} <= q E_k`` at stepsize ``eta`` (the best stepsize if left out).

        Raises:
            ValueError: if eta is outside [0, max_stepsize], where the theorem is silent.

        Example:
            >>> cgd_b2(gamma=0.5, beta=1.0, L=2.0, mu=1.0).factor(0.25)
            0.8125
        """
        if eta is None:
            return 1.0 - 1.0 / self.complexity
        if not 0 <= eta <= self.max_stepsize:
            raise ValueError(f"eta must lie in [0, {self.max_stepsize!r}], got {eta!r}; use best_stepsize")
        return 1.0 - self.slope * eta + self.bend * eta**2

    def rounds(self, eps: float) -> int:
        """How many rounds at the best stepsize make ``E_k <= eps E_0``.

        Raises:
            ValueError: if eps is outside (0, 1].

        Example:
            >>> cgd_b3(delta=4.0, L=2.0, mu=1.0).rounds(1e-3)
            56
        """
        if not 0 < eps <= 1:
            raise ValueError(f"eps must lie in (0, 1], got {eps!r}; it is relative to the first gap")
        return math.ceil(self.complexity * math.log(1.0 / eps))


def cgd_b1(alpha: float, beta: float, L: float, mu: float) -> CGDRate:
    """Theorem 17: a compressor in B1(alpha, beta).

    For ``0 <= eta <= 2 / (beta L)`` the factor is ``1 - (alpha / beta) eta mu (2 - eta beta L)``, best at
    ``1 / (beta L)``; the complexity is ``(beta^2 / alpha) (L / mu)``.

    Raises:
        ValueError: if a constant is not positive, ``alpha > beta**2`` or ``mu > L``.

    Source: On Biased Compression, Theorem 17.

    Example:
        >>> cgd_b1(alpha=0.25, beta=1.0, L=2.0, mu=1.0).factor()
        0.875
    """
    alpha, beta = _checks.positive("alpha", alpha), _checks.positive("beta", beta)
    if alpha > beta**2 * (1.0 + 1e-12):
        raise ValueError(
            f"B1 needs alpha <= beta^2, got alpha={alpha!r} and beta={beta!r}; swap or correct them"
        )
    return _shrinking("B1", alpha / beta, beta, L, mu)


def cgd_b2(gamma: float, beta: float, L: float, mu: float) -> CGDRate:
    """Theorem 18: a compressor in B2(gamma, beta).

    For ``0 <= eta <= 2 / (beta L)`` the factor is ``1 - gamma eta mu (2 - eta beta L)``, best at
    ``1 / (beta L)``; the complexity is ``(beta / gamma) (L / mu)``.

    Raises:
        ValueError: if a constant is not positive, ``gamma > beta`` or ``mu > L``.

    Source: On Biased Compression, Theorem 18, with the mu that the printed factor lacks.

    Example:
        >>> cgd_b2(gamma=0.25, beta=1.0, L=2.0, mu=1.0).factor()
        0.875
    """
    gamma, beta = _checks.positive("gamma", gamma), _checks.positive("beta", beta)
    if gamma > beta * (1.0 + 1e-12):
        raise ValueError(
            f"B2 needs gamma <= beta, got gamma={gamma!r} and beta={beta!r}; swap or correct them"
        )
    return _shrinking("B2", gamma, beta, L, mu)


def cgd_b3(delta: float, L: float, mu: float) -> CGDRate:
    """Theorem 19: a compressor in B3(delta).

    For ``0 <= eta <= 1 / L`` the factor is ``1 - eta mu / delta``, best at ``1 / L``; the complexity is
    ``delta L / mu``.

    Raises:
        ValueError: if delta is below 1, L is not positive or mu is outside (0, L].

    Source: On Biased Compression, Theorem 19, without the stray exponent of the printed factor.

    Example:
        >>> cgd_b3(delta=2.0, L=2.0, mu=1.0).factor(0.25)
        0.875
    """
    delta, L = _checks.at_least_one("delta", delta), _checks.positive("L", L)
    mu = _checks.convexity(mu, L)
    return CGDRate("B3", 1.0 / L, 1.0 / L, delta * (L / mu), slope=mu / delta, bend=0.0)


def measured_delta(error2: float, norm2: float) -> float:
    """The delta that one compression showed, ``1 / (1 - |C(g) - g|^2 / |g|^2)``.

    Infinite if nothing of g was kept; 1 for ``g = 0``, where there was nothing to lose.

    Args:
        error2: ``|C(g) - g|^2``.
        norm2: ``|g|^2``.

    Raises:
        ValueError: if a squared norm is negative or the error is larger than the vector.

    Source: On Biased Compression, Section 6.4.

    Example:
        >>> measured_delta(error2=3.0, norm2=4.0)
        4.0
    """
    error2, norm2 = _checks.nonnegative("error2", error2), _checks.nonnegative("norm2", norm2)
    if error2 > norm2:
        raise ValueError(
            f"error2={error2!r} exceeds norm2={norm2!r}: not contractive here; use .contractive()"
        )
    if error2 == 0.0:
        return 1.0
    return math.inf if error2 == norm2 else norm2 / (norm2 - error2)


def cgd_pathwise(deltas: Iterable[float], L: float, mu: float) -> list[float]:
    """The running products of ``1 - mu / (L delta_i)``, the first being 1 for no round at all.

    With stepsize 1/L and the deltas measured on the way (``measured_delta``), entry k times ``f(x^0) - f*``
    bounds ``f(x^k) - f*``; for a deterministic compressor this holds on the very path. A list of m deltas
    gives m + 1 entries.

    Raises:
        ValueError: if a delta is below 1 (infinity is allowed), L is not positive or mu is outside (0, L].

    Source: On Biased Compression, Theorem 19 with a delta for every round, and Section 6.4.

    Example:
        >>> cgd_pathwise([1.0, 2.0, float("inf")], L=2.0, mu=1.0)
        [1.0, 0.5, 0.375, 0.375]
    """
    ratio = _checks.convexity(mu, _checks.positive("L", L)) / L
    products = [1.0]
    for delta in deltas:
        if not delta >= 1:
            raise ValueError(f"every delta must be at least 1, got {delta!r}; use measured_delta")
        products.append(products[-1] * (1.0 - ratio / delta))
    return products


def _shrinking(name: str, gain: float, beta: float, L: float, mu: float) -> CGDRate:
    """The common form of Theorems 17 and 18, ``1 - gain eta mu (2 - eta beta L)``."""
    L = _checks.positive("L", L)
    mu = _checks.convexity(mu, L)
    best, slope = 1.0 / (beta * L), 2.0 * gain * mu
    return CGDRate(name, 2.0 * best, best, beta / gain * (L / mu), slope=slope, bend=gain * mu * beta * L)
