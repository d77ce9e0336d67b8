"""Distributed SGD with biased compression and error feedback (EF14): schedules and guarantees.

Algorithm 1 of On Biased Compression for Distributed Learning keeps the stepsize inside the compressor,
``m_i = C(e_i + eta^k g_i^k)``, ``e_i <- e_i + eta^k g_i^k - m_i``, ``x <- x - mean_i m_i``, and returns the
average of x^0..x^K with weights w^k. Theorem 21 gives three schedules for it. They assume that every f_i
is L-smooth and mu-strongly convex (so L is the largest and mu the smallest of the nodes' constants), that
every compressor is in B3(delta), and that the noise of node i's gradient has mean zero and
``E|xi_i|^2 <= B |grad f_i(x)|^2 + C``.

The theorem is printed with its constants hidden. The bounds here carry them, as they follow from the
recursion in the paper's proof; in experiments they are at least about 20 times above what is measured, and
for the geometric schedule far more. In them ``r0 = |x^0 - x*|^2``, and ``noise`` is the value of
`algorithm1_noise`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from laconic.theory import _checks


class _Vector(Protocol):
    """What an average needs: floats, NumPy arrays and tensors have it."""

    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...


V = TypeVar("V", bound=_Vector)


def algorithm1_stepsize(delta: float, L: float, B: float = 0.0) -> float:
    """The largest constant stepsize of Theorem 21, ``1 / (14 (2 delta + B) L)``.

    Raises:
        ValueError: if delta is below 1, L is not positive or B is negative.

    Source: On Biased Compression, Theorem 21 (ii) and (iii).

    Example:
        >>> algorithm1_stepsize(delta=2.0, L=1.0) == 1 / 56
        True
    """
    load = 2.0 * _checks.at_least_one("delta", delta) + _checks.nonnegative("B", B)
    return 1.0 / (14.0 * load * _checks.positive("L", L))


def algorithm1_kappa(delta: float, L: float, mu: float, B: float = 0.0) -> float:
    """kappa, the shift of the decreasing schedule, ``56 (2 delta + B) L / mu``.

    Raises:
        ValueError: if delta is below 1, L is not positive, mu is outside (0, L] or B is negative.

    Source: On Biased Compression, Theorem 21 (i).

    Example:
        >>> algorithm1_kappa(delta=1.0, L=2.0, mu=1.0)
        224.0
    """
    load = 2.0 * _checks.at_least_one("delta", delta) + _checks.nonnegative("B", B)
    L = _checks.positive("L", L)
    return 56.0 * load * L / _checks.convexity(mu, L)


def algorithm1_noise(delta: float, nodes: int, D: float, B: float = 0.0, C: float = 0.0) -> float:
    """The noise term of Theorem 21, ``C (1 + 1/n) + D (2 B / n + 3 delta)``.

    ``D = (1/n) sum |grad f_i(x*)|^2`` says how unlike the nodes are; B and C describe the gradients' noise.

    Raises:
        ValueError: if delta is below 1, nodes is not a whole number of at least 1, or D, B or C is negative.

    Source: On Biased Compression, Theorem 21 (in A2 and A5).

    Example:
        >>> algorithm1_noise(delta=2.0, nodes=4, D=1.0, C=4.0)
        11.0
    """
    n = _checks.count("nodes", nodes, 1)
    delta, B = _checks.at_least_one("delta", delta), _checks.nonnegative("B", B)
    own = _checks.nonnegative("C", C) * (1.0 + 1.0 / n)
    return own + _checks.nonnegative("D", D) * (2.0 * B / n + 3.0 * delta)


@dataclass(frozen=True)
class DecreasingSchedule:
    """Schedule (i): ``eta^k = 4 / (mu (kappa + k))`` and ``w^k = kappa + k``.

    Example:
        >>> schedule = DecreasingSchedule(kappa=224.0, mu=1.0)
        >>> schedule.stepsize(0) == 4 / 224, schedule.growth(1) == 225 / 224
        (True, True)
    """

    kappa: float
    mu: float

    def __post_init__(self) -> None:
        """Refuse constants out of range."""
        _checks.positive("kappa", self.kappa)
        _checks.positive("mu", self.mu)

    def stepsize(self, k: int) -> float:
        """eta^k, for k = 0, 1, ..."""
        return 4.0 / (self.mu * (self.kappa + _checks.count("k", k, 0)))

    def growth(self, k: int) -> float:
        """``w^k / w^{k-1}``, for k = 1, 2, ..."""
        return (self.kappa + _checks.count("k", k, 1)) / (self.kappa + k - 1)

    def bound(self, K: int, r0: float, noise: float = 0.0) -> float:
        """The bound on ``E f(xbar^K) - f*``: ``2 mu kappa^2 r0 / K^2 + 32 noise / (mu K)``, K >= 1."""
        K, r0, noise = (
            _checks.count("K", K, 1),
            _checks.nonnegative("r0", r0),
            _checks.nonnegative("noise", noise),
        )
        return 2.0 * self.mu * self.kappa**2 * r0 / K**2 + 32.0 * noise / (self.mu * K)


@dataclass(frozen=True)
class GeometricSchedule:
    """Schedule (ii): a constant stepsize eta and ``w^k = (1 - mu eta / 2)^{-(k + 1)}``.

    The weights overflow a float in a long run; ``ErgodicAverage`` needs only their growth.

    Example:
        >>> schedule = GeometricSchedule(eta=0.5, mu=1.0)
        >>> schedule.stepsize(7), schedule.growth(1) == 1 / 0.75
        (0.5, True)
    """

    eta: float
    mu: float

    def __post_init__(self) -> None:
        """Refuse constants out of range."""
        product = _checks.positive("eta", self.eta) * _checks.positive("mu", self.mu)
        if product >= 2:
            raise ValueError(f"mu * eta must be below 2, got {product!r}; use algorithm1_stepsize or less")

    def stepsize(self, k: int) -> float:
        """eta^k, which is the same for every k = 0, 1, ..."""
        _checks.count("k", k, 0)
        return self.eta

    def growth(self, k: int) -> float:
        """``w^k / w^{k-1}``, for k = 1, 2, ..."""
        _checks.count("k", k, 1)
        return 1.0 / (1.0 - self.mu * self.eta / 2.0)

    def bound(self, K: int, r0: float, noise: float = 0.0) -> float:
        """The bound on ``E f(xbar^K) - f*``: ``(4 r0 / eta) exp(-mu eta K / 2) + 4 eta noise``."""
        K, r0, noise = (
            _checks.count("K", K, 0),
            _checks.nonnegative("r0", r0),
            _checks.nonnegative("noise", noise),
        )
        return 4.0 * r0 / self.eta * math.exp(-self.mu * self.eta * K / 2.0) + 4.0 * self.eta * noise


@dataclass(frozen=True)
class UniformSchedule:
    """Schedule (iii): a constant stepsize eta and equal weights.

    Example:
        >>> UniformSchedule(eta=0.5).bound(K=7, r0=2.0, noise=1.0)
        4.0
    """

    eta: float

    def __post_init__(self) -> None:
        """Refuse a stepsize out of range."""
        _checks.positive("eta", self.eta)

    def stepsize(self, k: int) -> float:
        """eta^k, which is the same for every k = 0, 1, ..."""
        _checks.count("k", k, 0)
        return self.eta

    def growth(self, k: int) -> float:
        """``w^k / w^{k-1} = 1``, for k = 1, 2, ..."""
        _checks.count("k", k, 1)
        return 1.0

    def bound(self, K: int, r0: float, noise: float = 0.0) -> float:
        """The bound on ``E f(xbar^K) - f*``: ``4 r0 / (eta (K + 1)) + 4 eta noise``."""
        K, r0, noise = (
            _checks.count("K", K, 0),
            _checks.nonnegative("r0", r0),
            _checks.nonnegative("noise", noise),
        )
        return 4.0 * r0 / (self.eta * (K + 1)) + 4.0 * self.eta * noise


class ErgodicAverage(Generic[V]):
    """The weighted average ``(1 / W^K) sum_{k <= K} w^k x^k``, kept as a running convex combination.

    Only the ratios of successive weights enter, so weights that grow without bound cannot overflow, and
    the average lies among its inputs: floats, NumPy arrays or tensors (of floating dtype).

    Args:
        growth: ``k -> w^k / w^{k-1}`` for k = 1, 2, ...; positive. A schedule's ``growth`` is one.

    Example:
        >>> average = ErgodicAverage(growth=lambda k: 2.0)
        >>> for x in (1.0, 4.0, 8.0):
        ...     average.update(x)
        >>> average.count, average.value == (1 * 1 + 2 * 4 + 4 * 8) / 7
        (3, True)
    """

    def __init__(self, growth: Callable[[int], float]) -> None:
        self._growth = growth
        self._value: V | None = None
        self._count = 0
        self._total = 0.0  # W^k / w^k: the sum of the weights in units of the newest

    @property
    def count(self) -> int:
        """How many points have been averaged."""
        return self._count

    @property
    def value(self) -> V:
        """The average so far; ``ValueError`` before the first ``update``."""
        if self._value is None:
            raise ValueError("nothing has been averaged yet; call update(x) first")
        return self._value

    def update(self, x: V) -> None:
        """Take in the next point.

        Raises:
            ValueError: if the growth of the weights is not positive and finite.
        """
        if self._value is None:
            # A product, not x itself: the caller may go on changing x in place.
            self._total, self._value = 1.0, x * 1.0
        else:
            self._total = 1.0 + self._total / _checks.positive("growth", self._growth(self._count))
            self._value = self._value + (x - self._value) * (1.0 / self._total)
        self._count += 1
