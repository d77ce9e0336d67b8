"""Numbers as they are (Identity), or rounded to a narrower dtype (Cast)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compressors._base import unbiased
from laconic.compressors._constants import Constants
from laconic.compressors._not_finite import require_all_finite
from laconic.compressors._quantizer import Quantizer
from laconic.formats import GroupFormat, Kind, SegmentFormat, accumulation_dtype
from laconic.kernels import SegmentedInput, Stream, cast_segments
from laconic.messages import Group, Part


@dataclass(frozen=True)
class Identity(Quantizer):
    """Sends everything: every class with constant 1.

    Example:
        >>> Identity().compress(torch.tensor([1.0, 2.0])).dense()
        tensor([1., 2.])
    """

    joint_on_device = True

    def part(self, x: Tensor, draw: Stream) -> Part:  # noqa: ARG002
        """x itself; a copy, because memories change in place while messages wait."""
        return Part(d=x.shape[-1], values=x.clone(), dtype=x.dtype)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        values, finite = cast_segments(inputs, one.kind.dtype)
        require_all_finite(finite)
        return Group(one, values)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """B1(1, 1), B2(1, 1), B3(1), U(1)."""
        return unbiased(1.0)

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:
        """Every number."""
        return SegmentFormat(d, d, Kind(dtype))


_UNIT_ROUNDOFF = {
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}


@dataclass(frozen=True)
class Cast(Quantizer):
    """Rounds each number to a narrower dtype, to the nearest and ties to even.

    The constants hold for numbers in the dtype's normal range, where the relative error is at most the
    unit roundoff u: beta = 1 + u, gamma = 1 - u, alpha = gamma^2, delta = 1/(1 - u^2). Larger numbers
    saturate at the dtype's largest.

    Args:
        dtype: torch.bfloat16, torch.float16 or torch.float32.

    Example:
        >>> Cast(torch.bfloat16).compress(torch.tensor([1.001, -1e30])).dense()[0]
        tensor(1.)
    """

    dtype: torch.dtype

    joint_on_device = True

    def __post_init__(self) -> None:
        """Refuse what is not a floating-point dtype that messages carry."""
        if self.dtype not in _UNIT_ROUNDOFF:
            raise ValueError(f"Cast takes {', '.join(map(str, _UNIT_ROUNDOFF))}, got {self.dtype}")

    def part(self, x: Tensor, draw: Stream) -> Part:  # noqa: ARG002
        """The rounded numbers."""
        wide = accumulation_dtype(x.dtype)
        most = min(torch.finfo(self.dtype).max, torch.finfo(wide).max)
        values = torch.empty(x.shape, dtype=self.dtype, device=x.device)
        values.copy_(x.to(wide).clamp(-most, most))
        return Part(d=x.shape[-1], values=values, dtype=self.dtype)

    def columns(self, one: GroupFormat, inputs: SegmentedInput, draw: Stream) -> Group:  # noqa: ARG002
        """As :meth:`part`, of all segments."""
        values, finite = cast_segments(inputs, self.dtype)
        require_all_finite(finite)
        return Group(one, values)

    def constants(self, d: int) -> Constants:  # noqa: ARG002
        """From the unit roundoff."""
        u = _UNIT_ROUNDOFF[self.dtype]
        return Constants(alpha=(1 - u) ** 2, beta=1 + u, gamma=1 - u, delta=1.0 / (1.0 - u * u))

    def structure(self, d: int, dtype: torch.dtype) -> SegmentFormat:  # noqa: ARG002
        """Every number, in the narrower dtype."""
        return SegmentFormat(d, d, Kind(self.dtype))
