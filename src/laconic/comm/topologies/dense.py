"""The dense topology: the exact mean over ranks, past compressor and memories."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from laconic.comm.topologies._protocol import BucketContext, BucketExchange, SegmentStates
from laconic.comm.topologies._vectors import Source, Vector, unscaled, write_scaled
from laconic.formats import accumulation_dtype
from laconic.kernels.tables import SegmentedVector


@dataclass(frozen=True)
class Dense:
    """The mean in float32 (float64 for float64), nodes in ascending order.

    The sum is the one that :class:`laconic.DCGD` with no compression makes, bit for bit. No flag has to say
    that a rank's numbers were not finite: the mean, which all ranks have alike, is then not finite either.
    """

    name = "dense"

    def make_bucket(self, context: BucketContext) -> BucketExchange:
        """A bucket that remembers nothing."""
        return _DenseBucket(context)


class _DenseBucket:
    def __init__(self, context: BucketContext) -> None:
        self._context = context

    def stage(self, source: Source, out: Vector, scale: float) -> bool:
        counter = self._context.counter
        flat = SegmentedVector.of(unscaled(source, scale)).flattened()
        own = flat.to("cpu", accumulation_dtype(flat.dtype))
        with counter.phase("communicate"):
            mean = self._context.collectives.mean(own, f"the dense mean of {self._context.what}")
        if not bool(torch.isfinite(mean).all()):
            return False
        with counter.phase("apply"):
            return write_scaled(mean.to(flat.device), out, scale)

    def commit(self) -> None:
        pass

    def roll_back(self) -> None:
        pass

    def state_by_segment(self) -> SegmentStates:
        return {segment.name: {} for segment in self._context.layout.segments}

    def load_by_segment(self, states: Mapping[str, dict[str, Any]]) -> None:
        pass
