"""Largest magnitudes of rows, and whether all numbers are finite."""

from collections.abc import Iterable

from torch import Tensor

from laconic.kernels.tables import accumulation_dtype


def largest_magnitude_reference(x: Tensor) -> Tensor:
    """The definition of :func:`laconic.kernels.largest_magnitude`."""
    return x.abs().amax(dim=-1, keepdim=True).to(accumulation_dtype(x.dtype))


def all_finite_reference(rows: Iterable[Tensor]) -> bool:
    """Whether no number of any row is NaN or infinite."""
    return all(bool(x.isfinite().all()) for x in rows)
