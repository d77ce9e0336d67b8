"""The tight rate of error feedback on one node."""

import math

from laconic.theory import _checks


def tight_rate(L: float, mu: float, alpha: float) -> tuple[float, float]:
    """The best stepsize of EF14 and EF21 on one node, and the factor at which they then contract.

    f is L-smooth and mu-strongly convex, and C satisfies ``|C(x) - x|^2 <= eps |x|^2`` for every x, not only
    in expectation, where ``eps = 1 - alpha``. In every round the factor bounds the ratio of successive
    values of

    * EF14: ``|x - x* - e|^2 + |e|^2 / sqrt(eps)``, e being the memory with the stepsize inside;
    * EF21: ``|g - h|^2 + sqrt(eps) |g|^2``, g being the gradient at x and h its estimate.

    Both are squares of lengths, so distances contract by the square root of the factor. No smaller factor
    is possible for them. At ``alpha = 1`` it is gradient descent's ``((L - mu) / (L + mu))^2``.

    Raises:
        ValueError: if L is not positive, mu is outside (0, L] or alpha is outside (0, 1].

    Source: Thomsen, Taylor and Dieuleveut, "Tight analyses of first-order methods with error feedback"
    (2025), the results for EF and EF21; the formulas were read in the authors' published code, and are held
    against runs by tests.

    Example:
        >>> stepsize, factor = tight_rate(L=3.0, mu=1.0, alpha=1.0)
        >>> stepsize, factor
        (0.5, 0.25)
    """
    L = _checks.positive("L", L)
    mu = _checks.convexity(mu, L)
    root = math.sqrt(1.0 - _checks.contraction(alpha))
    # alpha / (1 + root) is 1 - root without cancellation.
    kept = alpha / (1.0 + root)
    stepsize = 2.0 / (L + mu) * kept / (1.0 + root)
    spread = math.sqrt((L - mu) ** 2 + 16.0 * L * mu * root / (1.0 + root) ** 2)
    multiplier = stepsize / (L + mu) * (kept * (L - mu) + (1.0 + root) * spread)
    return stepsize, root + 0.25 * (1.0 + root) * (L - mu) * multiplier
