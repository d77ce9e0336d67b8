"""The constants of a compressor's classes B1, B2, B3 and U."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """What a compressor promises on vectors of one dimension d; ``None`` where a class does not hold.

    Every inequality holds for all x in R^d; the expectation is over the compressor's randomness
    (On Biased Compression, Definitions 1, 2, 4 and 5; papers' notation).

    * B1(alpha, beta): ``alpha |x|^2 <= E|C(x)|^2 <= beta <E C(x), x>``
    * B2(gamma, beta): ``max(gamma |x|^2, E|C(x)|^2 / beta) <= <E C(x), x>``
    * B3(delta):       ``E|C(x) - x|^2 <= (1 - 1/delta) |x|^2``
    * U(zeta):         ``E C(x) = x`` and ``E|C(x)|^2 <= zeta |x|^2``

    The known parameters are stored side by side: going from one class to another and back loses
    factors (Theorem 6), so none is derived from another where a sharper value is known.

    Example:
        >>> Constants(delta=100.0).contraction
        0.01
        >>> Constants(zeta=1.5).omega
        0.5
    """

    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    delta: float | None = None
    zeta: float | None = None

    @property
    def omega(self) -> float | None:
        """Relative variance of an unbiased compressor, ``zeta - 1``; ``None`` if it is biased."""
        return None if self.zeta is None else self.zeta - 1.0

    @property
    def contraction(self) -> float | None:
        """EF21's alpha, ``1 / delta``; ``None`` if the compressor is not contractive."""
        return None if self.delta is None else 1.0 / self.delta
