"""Block-wise quantization: few bits a value, with a scale for each block of values."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._constants import Constants
from laconic.compressors._not_finite import require_all_finite
from laconic.compressors._quantizer import Quantizer
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.formats.grids import BlockLevels
from laconic.kernels import SegmentedInput, Stream, quantize_block_segments, quantize_blocks
from laconic.messages import Group, Part


@dataclass(frozen=True)
class BlockQuantizer(Quantizer):
    """A sign and ``bits - 1`` bits of magnitude, between the smallest and the largest of a block.

    With m and M the smallest and the largest magnitude of a block and L = 2^(bits-1) - 1, each magnitude is
    rounded to the nearest of the L + 1 numbers ``m + j (M - m) / L``. It suits what Top-k keeps, where no
    magnitude is near 0; and a block that holds a 0 has m = 0, so zeros are kept.

    Constants, for n = min(block, d) values a block. Let M = 1 and s = 1/L; m and M are met exactly, so n - 2
    values have an error, and for each with magnitude v and code value c,
    ``|c - v| <= min(v, s/2)``. Maximising each ratio over blocks of such values, with q = (n - 2)/(4 L^2):

    * B3: ``1 - 1/delta = q/(1 + q)``, so delta = 1 + q; attained with m = 0 and v = s/2, rounded down.
    * gamma = 1 - sqrt(q)/2 where q <= 1, else 1/(1 + q).
    * beta = 1/(1 - sqrt(q)/2) where q <= 1/4, else (1 + 4q)/(1 + 2q).
    * alpha = 1 + q/2 - sqrt(q + q^2/4).

    ``docs/wire-format.md`` says how it travels: 8 bytes a block beside the codes.

    Args:
        bits: bits of a value, 2 to 8.
        block: values a scale.

    Example:
        >>> BlockQuantizer(bits=3).compress(torch.tensor([1.0, -2.1, 3.9, 4.0])).dense()
        tensor([ 1., -2.,  4.,  4.])
        >>> BlockQuantizer(bits=4, block=100).constants(1024).delta
        1.5
    """

    bits: int
    block: int = 1024

    def __post_init__(self) -> None:
        """Check bits and block."""
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be an int from 2 to 8, got {self.bits!r}")
        if isinstance(self.block, bool) or not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block must be an int >= 1, got {self.block!r}")

    def part(self, x: Tensor, draw: Stream) -> Part:  # noqa: ARG002
        """A code for each value; the smallest and the span of magnitudes of each block."""
        codes, low, span = quantize_blocks(x, (1 << (self.bits - 1)) - 1, self.block)
        return Part(
            d=x.shape[-1],
            values=codes,
            dtype=accumulation_dtype(x.dtype),
            grid=BlockLevels(self.bits),
            scale=span,
            low=low,
            block=self.block,
        )

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        codes, low, span, finite = quantize_block_segments(inputs, (1 << (self.bits - 1)) - 1, self.block)
        require_all_finite(finite)
        return Group(one, codes, scale=span, low=low)

    def constants(self, d: int) -> Constants:
        """As derived above."""
        steps = (1 << (self.bits - 1)) - 1
        q = max(0, min(self.block, d) - 2) / (4.0 * steps * steps)
        a = math.sqrt(q) / 2.0
        return Constants(
            alpha=1.0 + q / 2.0 - math.sqrt(q + q * q / 4.0),
            beta=1.0 / (1.0 - a) if q <= 0.25 else (1.0 + 4.0 * q) / (1.0 + 2.0 * q),
            gamma=1.0 - a if q <= 1.0 else 1.0 / (1.0 + q),
            delta=1.0 + q,
        )

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every value a code, two numbers a block."""
        grid = BlockLevels(self.bits)
        return SegmentFormat(
            d, d, Kind(accumulation_dtype(dtype), grid=grid, has_scale=True, has_low=True, block=self.block)
        )
