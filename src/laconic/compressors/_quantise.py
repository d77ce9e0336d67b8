"""What a quantiser is: a compressor that sends every coordinate, as a number of fewer bits."""

from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.grids import Grid, level_table
from laconic.kernels import Levels, Step, Stream, norm, round_to_levels
from laconic.messages import Message, Part


class Quantiser(Compressor):
    """A compressor whose message of ``x - memory`` is made in one reading, with no difference formed."""

    @abstractmethod
    def part(self, step: Step, draw: Stream) -> Part:
        """The message's part; ``step.out``, where given, gets what it decodes to added.

        Args:
            step: what is compressed.
            draw: as for :meth:`encode`.
        """

    def encode(self, x: Tensor, draw: Stream) -> Message:
        """A code or a narrower number for each coordinate."""
        return Message((self.part(Step(x), draw),))

    def encode_difference(self, target: Tensor, memory: Tensor, draw: Stream) -> Message:
        """As :meth:`encode` of ``target - memory``."""
        step = Step(target, memory)
        return Message((self.part(step if step.compiled else Step(target - memory), draw),))

    def track_(self, memory: Tensor, target: Tensor, draw: Stream) -> Message:
        """Compress ``target - memory`` and add the decoded message to ``memory``, in place."""
        step = Step(target, memory, out=memory)
        return Message((self.part(step, draw),)) if step.compiled else super().track_(memory, target, draw)

    def drain_(self, residual: Tensor, draw: Stream) -> Message:
        """Compress ``residual`` and subtract the decoded message from it, in place."""
        step = Step(residual, out=residual, weight=-1.0)
        return Message((self.part(step, draw),)) if step.compiled else super().drain_(residual, draw)


@lru_cache(maxsize=64)
def levels_of(grid: Grid, dtype: torch.dtype, device: torch.device) -> Levels:
    """A grid's levels, as the loops take them."""
    return Levels(level_table(grid, dtype, device), grid.window(dtype))


def rounded(step: Step, grid: Grid, draw: Stream | None) -> Part:
    """Codes of a grid: at random without bias, or without ``draw`` of the nearest levels."""
    levels = levels_of(grid, step.dtype, step.x.device)
    return Part(d=step.d, values=round_to_levels(step, levels, draw), dtype=step.dtype, grid=grid)


def dithered(step: Step, p: float, grid: Grid, draw: Stream) -> Part:
    """Codes of a grid, at random without bias, of magnitudes relative to the p-norm."""
    levels, scale = levels_of(grid, step.dtype, step.x.device), as_scale(norm(step, p), step.dtype)
    codes = round_to_levels(step, levels, draw, scale=scale)
    return Part(d=step.d, values=codes, dtype=step.dtype, grid=grid, scale=scale)


def as_scale(number: Tensor, dtype: torch.dtype) -> Tensor:
    """One number a row in a message's dtype, finite: (...) to (..., 1)."""
    return number.to(dtype).clamp(max=torch.finfo(dtype).max).unsqueeze(-1)
