"""EF21: constants, stepsizes and guarantees.

Everything here is stated for EF21 and holds word for word for EF21+: the error of EF21+ after a
round is never larger than the error that EF21 would have made from the same state, so the paper
proves the two theorems for both, with the same stepsizes. One function serves both.

Notation (EF21, Richtárik, Sokolov and Fatkhullin, 2021): f = (1/n) sum f_i is L-smooth, f_i is
L_i-smooth, L_tilde = sqrt((1/n) sum L_i^2), alpha is the compressor's contraction
(E|C(x) - x|^2 <= (1 - alpha) |x|^2), and G^t = (1/n) sum |g_i^t - grad f_i(x^t)|^2.

Theorem 1 is the nonconvex one and Theorem 2 the one under the Polyak-Lojasiewicz inequality. That numbering
is the arXiv version's, not checked against its text; the paper's poster calls them Theorems 2 and 3.
"""

import math

from laconic.theory import _checks


def optimal_s(alpha: float) -> float:
    """The s* that minimises beta(s) / theta(s): ``1 / sqrt(1 - alpha) - 1``.

    It is infinite at ``alpha = 1``, where theta = 1 and beta = 0 for every s.

    Raises:
        ValueError: if alpha is outside (0, 1].

    Source: EF21, the lemma on theta and beta.

    Example:
        >>> optimal_s(0.75)
        1.0
    """
    root = math.sqrt(1.0 - _checks.contraction(alpha))
    # alpha / (1 + root) is 1 - root without the cancellation that small alpha would suffer.
    return math.inf if root == 0.0 else alpha / (1.0 + root) / root


def theta(alpha: float, s: float | None = None) -> float:
    """theta, the fraction of the error G that one round of EF21 removes.

    ``E G^{t+1} <= (1 - theta) E G^t + beta L_tilde^2 E|x^{t+1} - x^t|^2``, with
    ``theta(s) = 1 - (1 - alpha)(1 + s)``. Without ``s`` the optimal s* is taken, where
    ``theta = 1 - sqrt(1 - alpha)``.

    Raises:
        ValueError: if alpha is outside (0, 1], or s outside (0, alpha / (1 - alpha)).

    Source: EF21, the lemma on theta and beta.

    Example:
        >>> theta(0.75), theta(0.75, s=2.0)
        (0.5, 0.25)
    """
    alpha = _checks.contraction(alpha)
    if s is None:
        return alpha / (1.0 + math.sqrt(1.0 - alpha))
    return alpha - _young(alpha, s) * (1.0 - alpha)


def beta(alpha: float, s: float | None = None) -> float:
    """beta, the weight with which the movement of x re-enters the error G (see :func:`theta`).

    ``beta(s) = (1 - alpha)(1 + 1/s)``; without ``s`` the optimal s* is taken, where
    ``beta = (1 - alpha) / (1 - sqrt(1 - alpha))``. It is 0 for ``alpha = 1``.

    Raises:
        ValueError: if alpha is outside (0, 1], or s outside (0, alpha / (1 - alpha)).

    Source: EF21, the lemma on theta and beta.

    Example:
        >>> beta(0.75), beta(0.75, s=2.0), beta(1.0)
        (0.5, 0.375, 0.0)
    """
    alpha = _checks.contraction(alpha)
    if s is None:
        return (1.0 - alpha) / theta(alpha)
    return (1.0 - alpha) * (1.0 + 1.0 / _young(alpha, s))


def ef21_stepsize(alpha: float, L: float, L_tilde: float) -> float:
    """The largest stepsize of EF21 and EF21+ for smooth functions.

    It is ``1 / (L + L_tilde sqrt(beta / theta))``. The functions need not be convex, and the nodes may hold
    unlike data.

    Raises:
        ValueError: if alpha is outside (0, 1] or a smoothness constant is not positive.

    Source: EF21, Theorem 1.

    Example:
        >>> ef21_stepsize(1.0, L=2.0, L_tilde=3.0)
        0.5
        >>> ef21_stepsize(0.75, L=2.0, L_tilde=2.0)
        0.25
    """
    ratio = math.sqrt(1.0 - _checks.contraction(alpha)) / theta(alpha)
    return 1.0 / (_checks.positive("L", L) + _checks.positive("L_tilde", L_tilde) * ratio)


def ef21_pl_stepsize(alpha: float, L: float, L_tilde: float, mu: float) -> float:
    """The largest stepsize of EF21 and EF21+ under the Polyak-Łojasiewicz inequality.

    ``min{1 / (L + L_tilde sqrt(2 beta / theta)), theta / (2 mu)}``, where mu is such that
    ``f(x) - f* <= |grad f(x)|^2 / (2 mu)`` for all x; mu-strong convexity implies it.

    Raises:
        ValueError: if alpha is outside (0, 1], mu outside (0, L], or a smoothness constant not positive.

    Source: EF21, Theorem 2.

    Example:
        >>> ef21_pl_stepsize(1.0, L=2.0, L_tilde=3.0, mu=1.0)
        0.5
        >>> ef21_pl_stepsize(0.19, L=1.0, L_tilde=1.0, mu=1.0) == min(0.05, 1 / (1 + 9 * 2**0.5))
        True
    """
    ratio = math.sqrt(2.0 * (1.0 - _checks.contraction(alpha))) / theta(alpha)
    first = 1.0 / (_checks.positive("L", L) + _checks.positive("L_tilde", L_tilde) * ratio)
    return min(first, theta(alpha) / (2.0 * _checks.convexity(mu, L)))


def ef21_bound(alpha: float, stepsize: float, rounds: int, gap: float, G0: float = 0.0) -> float:
    """The bound on the mean of ``E|grad f(x^t)|^2`` over t = 0..T-1, T being ``rounds``.

    ``2 (f(x^0) - f_inf) / (gamma T) + G^0 / (theta T)``, for any stepsize gamma up to :func:`ef21_stepsize`.
    ``gap`` is ``f(x^0) - f_inf``; ``G0`` is G^0, zero if every g_i^0 is the full gradient.

    Raises:
        ValueError: if alpha, the stepsize, the rounds (at least 1), the gap or G0 is out of range.

    Source: EF21, Theorem 1.

    Example:
        >>> ef21_bound(0.75, stepsize=0.25, rounds=10, gap=5.0, G0=1.0)
        4.2
    """
    T = _checks.count("rounds", rounds, 1)
    first = 2.0 * _checks.nonnegative("gap", gap) / (_checks.positive("stepsize", stepsize) * T)
    return first + _checks.nonnegative("G0", G0) / (theta(alpha) * T)


def ef21_rounds(alpha: float, L: float, L_tilde: float, gap: float, eps: float) -> int:
    """How many rounds make the mean of ``E|grad f(x^t)|^2`` at most ``eps**2``.

    For g_i^0 = grad f_i(x^0) and the stepsize :func:`ef21_stepsize`: the smallest T with
    ``2 gap / (gamma T) <= eps^2``. It is at most ``ceil(4 L_tilde gap / (alpha eps^2))`` (our derivation; the
    JMLR version's Corollary 5 has 6 in the place of 4), so it grows like 1/alpha. ``gap`` is
    ``f(x^0) - f_inf``; ``eps`` has the unit of a gradient's norm.

    Raises:
        ValueError: if alpha is outside (0, 1] or another argument is not positive (gap may be zero).

    Source: EF21, the corollary of Theorem 1, with sqrt(beta/theta) in place of its bound 2/alpha - 1.

    Example:
        >>> ef21_rounds(0.75, L=2.0, L_tilde=2.0, gap=5.0, eps=0.5)
        160
    """
    gap, eps = _checks.nonnegative("gap", gap), _checks.positive("eps", eps)
    return max(1, math.ceil(2.0 * gap / (ef21_stepsize(alpha, L, L_tilde) * eps**2)))


def ef21_lyapunov(alpha: float, stepsize: float, gap: float, G: float) -> float:
    """``f(x^t) - f_inf + (gamma / (2 theta)) G^t``, which never increases (in expectation).

    In one round it falls by at least ``(gamma / 2) |grad f(x^t)|^2``. ``gap`` is ``f(x^t) - f_inf``.

    Raises:
        ValueError: if alpha, the stepsize, the gap or G is out of range.

    Source: EF21, proof of Theorem 1.

    Example:
        >>> ef21_lyapunov(0.75, stepsize=0.25, gap=1.0, G=2.0)
        1.5
    """
    gap, G = _checks.nonnegative("gap", gap), _checks.nonnegative("G", G)
    return gap + _checks.positive("stepsize", stepsize) / (2.0 * theta(alpha)) * G


def ef21_pl_lyapunov(alpha: float, stepsize: float, gap: float, G: float) -> float:
    """``Psi^t = f(x^t) - f* + (gamma / theta) G^t``, which :func:`ef21_pl_factor` bounds.

    Raises:
        ValueError: if alpha, the stepsize, the gap or G is out of range.

    Source: EF21, Theorem 2.

    Example:
        >>> ef21_pl_lyapunov(0.75, stepsize=0.25, gap=1.0, G=2.0)
        2.0
    """
    gap, G = _checks.nonnegative("gap", gap), _checks.nonnegative("G", G)
    return gap + _checks.positive("stepsize", stepsize) / theta(alpha) * G


def ef21_pl_factor(stepsize: float, mu: float) -> float:
    """``1 - gamma mu``: ``E Psi^T <= (1 - gamma mu)^T Psi^0`` up to :func:`ef21_pl_stepsize`.

    Raises:
        ValueError: if an argument is not positive, or their product exceeds 1.

    Source: EF21, Theorem 2.

    Example:
        >>> ef21_pl_factor(stepsize=0.25, mu=1.0)
        0.75
    """
    product = _checks.positive("stepsize", stepsize) * _checks.positive("mu", mu)
    if product > 1:
        raise ValueError(f"stepsize * mu must not exceed 1, got {product!r}; use ef21_pl_stepsize or less")
    return 1.0 - product


def _young(alpha: float, s: float) -> float:
    """The weight s, if admissible, ``0 < s < alpha / (1 - alpha)``."""
    if not (math.isfinite(s) and s > 0 and alpha - s * (1.0 - alpha) > 0):
        raise ValueError(
            f"s must lie in (0, alpha / (1 - alpha)), got {s!r}; leave s out for the optimal one"
        )
    return float(s)
