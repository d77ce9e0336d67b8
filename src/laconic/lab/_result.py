"""Result of a run: gradient norms, bits sent, how each run ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from laconic.lab._types import Array
from laconic.messages import Accounting

Direction = Literal["up", "down"]
End = Literal["tolerance", "rounds", "diverged"]


@dataclass(frozen=True)
class Result:
    """The course of one method over stepsize multiples and seeds.

    The arrays have the shape (multiples, rounds + 1); with several seeds (seeds, multiples, rounds + 1).
    Index t holds the iterate x^t, so index 0 is the start. After a run has stopped its entries are NaN.

    Args:
        method: the feedback's name.
        multiples: the stepsize multiples.
        seeds: the seeds.
        base_stepsize: the stepsize that the multiples multiply.
        grad_norm2: ``|grad f(x^t)|^2``.
        ends: how each run ended, (multiples,) or (seeds, multiples) strings: "tolerance", "rounds" or
            "diverged".
        x: the last iterates, (multiples, d) or (seeds, multiples, d).
        sent: bits by accounting and direction, cumulative.
    """

    method: str
    multiples: tuple[float, ...]
    seeds: tuple[int, ...]
    base_stepsize: float
    grad_norm2: Array
    ends: npt.NDArray[np.str_]
    x: Array
    sent: Mapping[tuple[Accounting, Direction], Array]

    def bits(self, kind: Accounting = "wire", direction: Direction = "up") -> Array:
        """Bits per node sent until x^t was known, cumulative; the shape of ``grad_norm2``.

        Args:
            kind: "wire" is what :func:`laconic.pack` makes; the lab computes in float64, so numbers that no
                quantiser narrows take 64 bits there. "values" is the papers' count: 32 bits a kept number
                (or its code), no positions, no flags, a dense first round free. "entropy" is the
                information in the messages at 32 bits a number, a dense first round and flags included.
            direction: "up", from a node (the mean over nodes); "down", the estimate sent to a node, whole.

        Raises:
            ValueError: for an unknown kind or direction.
        """
        if (kind, direction) not in self.sent:
            raise ValueError(
                f"no bits of kind {kind!r} and direction {direction!r}; kinds are {get_args(Accounting)}, "
                f"directions {get_args(Direction)}"
            )
        return self.sent[kind, direction]

    @property
    def rounds(self) -> npt.NDArray[np.int64]:
        """Rounds that each run made: (multiples,) or (seeds, multiples)."""
        return np.asarray((~np.isnan(self.grad_norm2)).sum(axis=-1) - 1)

    @property
    def final(self) -> Array:
        """``|grad f|^2`` at each run's last iterate; infinity where it diverged."""
        last = np.take_along_axis(self.grad_norm2, self.rounds[..., None], axis=-1)[..., 0]
        return np.where(self.ends == "diverged", np.inf, last)

    def best(self) -> int:
        """The index of the best multiple, of the first seed: fewest rounds to the tolerance, else lowest end.

        Multiples of one method send equal messages (on average, where their size varies), so fewest rounds
        means fewest bits.
        """
        ends, rounds, final = (
            a if len(self.seeds) == 1 else a[0] for a in (self.ends, self.rounds, self.final)
        )
        order = [
            (end != "tolerance", n if end == "tolerance" else 0, value)
            for end, n, value in zip(ends, rounds, final, strict=True)
        ]
        return min(range(len(order)), key=order.__getitem__)
