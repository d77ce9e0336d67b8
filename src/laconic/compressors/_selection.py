"""Selections of coordinates, and the number k of coordinates to keep."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Which coordinates a sparsifier keeps of each row; the fields are those of ``Part``."""

    positions: Tensor
    count: Tensor | None = None
    seeded: bool = False
    cells: tuple[int, int] | None = None
    origin: Tensor | None = None


def gather(x: Tensor, selection: Selection) -> Tensor:
    """The selected numbers of each row, 0 in places that are not used."""
    if selection.count is not None:
        x = torch.nn.functional.pad(x, (0, 1))
    return x.gather(-1, selection.positions)


def resolve_k(k: float, d: int) -> int:
    """The number of coordinates that ``k`` means for vectors of length d.

    An int is a count; a float in (0, 1) is a fraction: ``max(1, ceil(k d - 1e-9))``.

    Raises:
        ValueError: where the count exceeds d.
    """
    if isinstance(k, int):
        if k > d:
            raise ValueError(
                f"cannot keep k = {k} of {d} coordinates; use k <= {d} or a fraction such as k = 0.01"
            )
        return k
    return max(1, math.ceil(k * d - 1e-9))


def check_k(k: float) -> None:
    """Refuse what is neither a count >= 1 nor a fraction in (0, 1)."""
    if isinstance(k, bool) or not isinstance(k, (int, float)):
        raise TypeError(f"k must be an int (a count) or a float (a fraction), got {k!r}")
    if isinstance(k, int) and k < 1:
        raise ValueError(f"k = {k} keeps nothing; use a count >= 1 or a fraction in (0, 1)")
    if isinstance(k, float) and not 0.0 < k < 1.0:
        raise ValueError(
            f"the fraction k = {k} is outside (0, 1); to keep everything use Identity, "
            "for a count write an int"
        )
