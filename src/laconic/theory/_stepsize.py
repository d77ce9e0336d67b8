"""The theoretical stepsize of a feedback method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from laconic.theory import _checks
from laconic.theory._algorithm1 import algorithm1_stepsize
from laconic.theory._ef21 import ef21_pl_stepsize, ef21_stepsize

if TYPE_CHECKING:
    from laconic.compressors._constants import Constants


class NoTheory(ValueError):  # noqa: N818 - the name is public and says what is absent
    """No theorem known here gives a stepsize for what was asked; the message says what to do instead.

    Example:
        >>> issubclass(NoTheory, ValueError)
        True
    """


class DescribedCompressor(Protocol):
    """What the theory asks of a compressor: its constants in dimension d."""

    def constants(self, d: int) -> Constants:
        """The constants of the classes that hold on R^d."""


class DescribedFeedback(Protocol):
    """What the theory asks of a feedback: its name and its compressor ("ef21-sgdm" also has an ``eta``)."""

    @property
    def name(self) -> str:
        """One of "dcgd", "ef14", "ef21", "ef21+" and "ef21-sgdm"."""

    @property
    def compressor(self) -> DescribedCompressor:
        """The compressor inside."""


def stepsize(
    feedback: DescribedFeedback,
    *,
    d: int,
    L: float,
    L_tilde: float,
    mu: float | None = None,
    nodes: int | None = None,
    L_max: float | None = None,
) -> float:
    """The largest constant stepsize that the theory of a feedback allows.

    * "ef21", "ef21+": `ef21_stepsize` (Theorem 1 of EF21), or with mu `ef21_pl_stepsize` (Theorem 2).
    * "ef21-sgdm": ``min{alpha / (20 L_tilde), eta / (7 L)}`` (Momentum Provably Improves Error Feedback,
      2023). The form is believed right, but the constants 20 and 7 were not checked against the paper's
      text; the result is always below `ef21_stepsize`. mu does not enter.
    * "ef14": `algorithm1_stepsize` (Theorem 21 of On Biased Compression) for noise with B = 0. It needs mu,
      every f_i being mu-strongly convex, and the largest L_i.
    * "dcgd", one node: the best stepsize of the best class of Theorems 17 to 19. Several nodes: 1/L if
      nothing is lost; ``1 / (L + 2 L_max omega / n)`` if the compressor is unbiased, independent from node to
      node, the f_i are convex and f is mu-strongly convex. Then ``|x^k - x*|^2`` contracts by ``1 - eta mu``
      a round, down to ``2 eta omega D / (n mu)`` with ``D = (1/n) sum |grad f_i(x*)|^2``. That follows from
      ``E|g|^2 <= |grad f|^2 + (omega/n) (1/n) sum |grad f_i|^2`` and
      ``(1/n) sum |grad f_i(x)|^2 <= 4 L_max (f(x) - f*) + 2 D``.

    Args:
        feedback: what is described by ``name``, ``compressor`` and, for "ef21-sgdm", ``eta``.
        d: the dimension on which the compressor acts.
        L: the smoothness constant of f; like the next, any larger value is safe.
        L_tilde: ``sqrt((1/n) sum L_i^2)``, L_i being the smoothness constant of f_i.
        mu: the constant of strong convexity, or of the Polyak-Łojasiewicz inequality for EF21; None if
            there is none.
        nodes: n. Needed for "dcgd".
        L_max: the largest L_i. Without it the safe ``sqrt(n) L_tilde`` is taken (and L for one node).

    Returns:
        The stepsize, in the unit of 1/L.

    Raises:
        NoTheory: if there is no theorem for the method with this compressor and these constants.
        ValueError: if a constant is out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> from laconic.compressors._constants import Constants
        >>> top = SimpleNamespace(constants=lambda d: Constants(delta=4 / 3))
        >>> stepsize(SimpleNamespace(name="ef21", compressor=top), d=4, L=2.0, L_tilde=2.0)
        0.25
    """
    L, L_tilde = _checks.positive("L", L), _checks.positive("L_tilde", L_tilde)
    mu = None if mu is None else _checks.convexity(mu, L)
    nodes = None if nodes is None else _checks.count("nodes", nodes, 1)
    constants = feedback.compressor.constants(_checks.count("d", d, 1))
    name = feedback.name
    if name == "dcgd":
        return _dcgd(constants, L, L_tilde, mu, nodes, L_max)
    if name not in {"ef14", "ef21", "ef21+", "ef21-sgdm"}:
        raise NoTheory(f"no stepsize theory for {name!r} here; tune it, or use EF21")
    delta, alpha = constants.delta, constants.contraction
    if delta is None or alpha is None:
        raise NoTheory(
            f"{name} needs a contractive compressor, and this one is not; use compressor.contractive()"
        )
    if name == "ef14":
        if getattr(feedback, "decay", 1.0) != 1.0:
            raise NoTheory("Theorem 21 (EF14) keeps the whole memory; use decay=1, or tune the stepsize")
        if "bfloat16" in str(getattr(feedback, "residual", "")):
            raise NoTheory("Theorem 21 (EF14) does not round the memory; use residual=torch.float32")
        if mu is None:
            raise NoTheory(
                "Theorem 21 (EF14) needs strong convexity; pass mu=, or use EF21, which needs none"
            )
        return algorithm1_stepsize(delta, _largest(name, L, L_tilde, nodes, L_max))
    if name == "ef21-sgdm":
        eta = float(getattr(feedback, "eta", math.nan))
        if not 0 < eta <= 1:
            raise ValueError(f"eta must lie in (0, 1], got {eta!r}; it is the weight of the new gradient")
        return min(alpha / (20.0 * L_tilde), eta / (7.0 * L))
    return ef21_stepsize(alpha, L, L_tilde) if mu is None else ef21_pl_stepsize(alpha, L, L_tilde, mu)


def _largest(name: str, L: float, L_tilde: float, nodes: int | None, L_max: float | None) -> float:
    """The largest L_i, or a bound on it where it was not given."""
    if L_max is not None:
        return _checks.positive("L_max", L_max)
    if nodes is None:
        raise NoTheory(
            f"the theorem for {name} needs the largest L_i; pass L_max= (or nodes=, for a safe bound on it)"
        )
    return L if nodes == 1 else math.sqrt(nodes) * L_tilde


def _dcgd(
    constants: Constants, L: float, L_tilde: float, mu: float | None, nodes: int | None, L_max: float | None
) -> float:
    """The stepsize of (distributed) compressed gradient descent without feedback."""
    if constants.delta == 1 or constants.zeta == 1:
        return 1.0 / L
    if nodes is None:
        raise NoTheory("DCGD's theory differs between one node and several; pass nodes=")
    if nodes == 1:
        return _cgd(constants, L)
    if constants.omega is None:
        raise NoTheory(
            "biased compression without feedback may diverge on several nodes at every stepsize "
            "(On Biased Compression, Example 1); use EF21"
        )
    if mu is None:
        raise NoTheory(
            "unbiased DCGD on several nodes has a theory for convex f_i only; pass mu=, or use EF21"
        )
    return 1.0 / (L + 2.0 * _largest("dcgd", L, L_tilde, nodes, L_max) * constants.omega / nodes)


def _cgd(constants: Constants, L: float) -> float:
    """The best stepsize in the class of least complexity, the first listed where they tie."""
    found: list[tuple[float, float]] = []  # complexity in units of L/mu, stepsize
    if constants.delta is not None:
        found.append((constants.delta, 1.0 / L))
    if constants.beta is not None and constants.gamma is not None:
        found.append((constants.beta / constants.gamma, 1.0 / (constants.beta * L)))
    if constants.beta is not None and constants.alpha is not None:
        found.append((constants.beta**2 / constants.alpha, 1.0 / (constants.beta * L)))
    if constants.zeta is not None:
        # Unbiased compressors are in B2(1, zeta) (Theorem 6).
        found.append((constants.zeta, 1.0 / (constants.zeta * L)))
    if not found:
        raise NoTheory(
            "the compressor belongs to none of B1, B2, B3 and U; use compressor.contractive() or EF21"
        )
    return min(found, key=lambda pair: pair[0])[1]
