"""Powers of two, as many below the largest as a few bits can say."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import Compressor
from laconic.compressors._constants import Constants
from laconic.compressors._quantise import coded
from laconic.grids import ClippedPowers, level_table
from laconic.kernels import Stream
from laconic.messages import Message, accumulation_dtype
from laconic.specs import Kind, PartSpec


@dataclass(frozen=True)
class ClippedExponent(Compressor):
    """Rounds to the nearest power of two and sends how far it lies below the largest: 1 + bits bits.

    The largest power 2^E and the w - 1 below it, w = 2^bits - 1, can be said; what rounds lower becomes the
    lowest of them, 2^(E-w+1), or 0, whichever is nearer. From the middle, up.

    Constants, with r = 2^(1-w) and |x|_inf = 1, so that 2^E >= 2/3 and the lowest power is l >= 2r/3; the
    largest l that |x|_inf = 1 allows is 4r/3 (at 3/4 of a power; there 1 is exact or rounded up). A value v
    that meets a power c has v in [3c/4, 3c/2]. Values below l/2 become 0, and those between l/2 and l
    become l, an error of at most v. With t = (d - 1) (l/2)^2 <= (d - 1) (2r/3)^2 the most that can lie
    under l/2, and 1/9 the largest relative squared error above 3l/4:

    * ``1 - 1/delta = (1/9 + t)/(1 + t)``, so delta = (9/8) (1 + t);
    * gamma = (2/3) / (1 + t), beta = 2, alpha = (4/9) / (1 + t).

    Args:
        bits: bits beside the sign, 2 to 7.

    Example:
        >>> ClippedExponent(2).compress(torch.tensor([16.0, -7.0, 3.0, 2.0, 1.0])).dense()
        tensor([16., -8.,  4.,  4.,  0.])
    """

    bits: int

    def __post_init__(self) -> None:
        """Check bits."""
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 7:
            raise ValueError(f"bits must be an int from 2 to 7, got {self.bits!r}")
