"""AdamW's update of segments as operands: computed when it is compressed, and with it the moment after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from laconic.kernels.optimizer import Settings, adamw_advance, adamw_update
from laconic.kernels.tables import Integers, Vectors, accumulation_dtype


@dataclass(frozen=True, eq=False)
class AdamWUpdate:
    """What :func:`laconic.kernels.adamw_update` makes of gradients and second moments, without a first.

    The moments stay as they are. Whoever computes the update of a segment also writes its moment after it.

    Args:
        gradient: float32, float64 or bfloat16.
        moment: the second moments, in the accumulation dtype.
        after: gets the second moments after the update; as ``moment``.
        settings: (S, 9), as for :func:`laconic.kernels.adamw_update`, with beta_1 = 0.
        numels: int64 (S,), lengths of the segments.
        numbers: int64 (S,), places in ``made`` of the segments.
        made: bool, of which segments ``after`` has been written.

    Example:
        >>> zero, numels = np.array([0]), np.array([2])
        >>> g, v, after, out = torch.tensor([2.0, -3.0]), torch.zeros(2), torch.zeros(2), torch.empty(2)
        >>> row = np.array([[1.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.0, 0.25]])
        >>> AdamWUpdate.of(*(Vectors.flat(x, zero) for x in (g, v, after)), row, numels).write(
        ...     Vectors.flat(out, zero))
        >>> out, after
        (tensor([ 0.2500, -0.2500]), tensor([2.0000, 4.5000]))
    """

    gradient: Vectors
    moment: Vectors
    after: Vectors
    settings: Settings
    numels: Integers
    numbers: Integers
    made: npt.NDArray[np.bool_] = field(repr=False)

    @classmethod
    def of(
        cls, gradient: Vectors, moment: Vectors, after: Vectors, settings: Settings, numels: Integers
    ) -> "AdamWUpdate":
        """The update of all segments."""
        dtype = accumulation_dtype(gradient.dtype)
        if moment.dtype != dtype or after.dtype != dtype:
            raise ValueError(f"moments must be {dtype}, got {moment.dtype} and {after.dtype}")
        made = np.zeros(len(numels), np.bool_)
        return cls(gradient, moment, after, settings, numels, np.arange(len(numels)), made)

    def at(self, places: Sequence[int]) -> "AdamWUpdate":
        """The update of some segments."""
        own = np.array(places, np.int64)
        gradient, moment, after = (
            replace(each, starts=each.starts[own]) for each in (self.gradient, self.moment, self.after)
        )
        rows, numbers = self.settings[own], self.numbers[own]
        return AdamWUpdate(gradient, moment, after, rows, self.numels[own], numbers, self.made)

    @property
    def dtype(self) -> torch.dtype:
        """Of the updates: the accumulation dtype."""
        return self.moment.dtype

    @property
    def rows(self) -> npt.NDArray[np.floating[Any]]:
        """The settings in the accumulation dtype."""
        return self.settings.astype(np.float64 if self.dtype == torch.float64 else np.float32)

    def write(self, out: Vectors) -> None:
        """Write the update, and the moments after it."""
        adamw_update(out, self.gradient, self.moment, self.moment, self.settings, self.numels, self.after)
        self.note()

    def finish(self) -> None:
        """Write the moments of segments whose update nobody has computed."""
        missing = np.flatnonzero(~self.made[self.numbers])
        if missing.size:
            self.at(missing.tolist())._advance()

    def _advance(self) -> None:
        adamw_advance(self.moment, self.moment, self.gradient, self.settings, self.numels, self.after)
        self.note()

    def note(self) -> None:
        """The moments of these segments have been written."""
        self.made[self.numbers] = True
