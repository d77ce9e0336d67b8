"""Validation of the constants that the formulas take."""

import math


def positive(name: str, value: float) -> float:
    """``value`` as a float if it is finite and greater than zero; raise ``ValueError`` if not.

    Example:
        >>> positive("L", 2)
        2.0
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}; pass {name} > 0")
    return float(value)


def nonnegative(name: str, value: float) -> float:
    """``value`` as a float if it is finite and at least zero; raise ``ValueError`` if not.

    Example:
        >>> nonnegative("G0", 0)
        0.0
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be non-negative and finite, got {value!r}; pass {name} >= 0")
    return float(value)


def contraction(value: float) -> float:
    """EF21's ``alpha`` as a float if it lies in (0, 1]; raise ``ValueError`` if not.

    Example:
        >>> contraction(1)
        1.0
    """
    if not 0 < value <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {value!r}; pass 1/delta of a contractive compressor")
    return float(value)


def at_least_one(name: str, value: float) -> float:
    """``value`` as a float if it is finite and at least one; raise ``ValueError`` if not.

    Example:
        >>> at_least_one("delta", 4)
        4.0
    """
    if not (math.isfinite(value) and value >= 1):
        raise ValueError(f"{name} must be finite and at least 1, got {value!r}; no compressor has {name} < 1")
    return float(value)


def convexity(mu: float, L: float) -> float:
    """``mu`` as a float if it lies in (0, L], up to rounding; raise ``ValueError`` if not.

    Example:
        >>> convexity(0.5, 1.0)
        0.5
    """
    positive("mu", mu)
    # Eigenvalues computed in floating point may put mu a few units in the last place above L.
    if mu > L * (1.0 + 1e-12):
        raise ValueError(
            f"mu must not exceed L, got mu={mu!r} and L={L!r}; the two are swapped or mu is too large"
        )
    return min(float(mu), L)


def count(name: str, value: int, least: int) -> int:
    """``value`` as an int if it is a whole number of at least ``least``; raise ``ValueError`` if not.

    Example:
        >>> count("rounds", 3, 1)
        3
    """
    if value != int(value) or value < least:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}; pass {name} >= {least}"
        )
    return int(value)
