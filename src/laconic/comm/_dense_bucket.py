"""A bucket of a dense step: the exact mean over ranks, past compressor and memories."""

import torch

from laconic.comm._bucket import Vector, write_scaled
from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.formats import accumulation_dtype
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout


class DenseBucket:
    """The segments of one bucket, averaged in float32 (float64 for float64), nodes in ascending order.

    The sum is the one that :class:`laconic.DCGD` with no compression makes, bit for bit. No flag has to say
    that a rank's numbers were not finite: the mean, which all ranks have alike, is then not finite either.
    """

    def __init__(self, layout: Layout, group: Group, counter: Counter) -> None:
        """Remember nothing but names."""
        self._layout = layout
        self._group = group
        self._counter = counter

    def run(self, source: Vector, out: Vector, scale: float) -> bool:
        """Write the mean over ranks; whether it was finite. Arguments as for ``Bucket.run``."""
        flat = SegmentedVector.of(source).flattened()
        if self._layout.d != flat.numel():
            raise ValueError(
                f"the bucket of {self._layout.segments[0].name!r} has {self._layout.d} elements, got "
                f"{flat.numel()}"
            )
        own = flat.to("cpu", accumulation_dtype(flat.dtype))
        if scale != 1.0:
            own = own / scale
        with self._counter.phase("communicate"):
            mean = self._group.mean(own, f"the dense mean of the bucket of {self._layout.segments[0].name!r}")
        others, nbytes = self._group.size - 1, own.numel() * own.element_size()
        self._counter.bytes_sent += 2 * others * nbytes // self._group.size
        self._counter.bytes_received += 2 * others * nbytes // self._group.size
        self._counter.bytes_bf16 += 2 * others * 2 * own.numel() // self._group.size
        if not bool(torch.isfinite(mean).all()):
            return False
        with self._counter.phase("apply"):
            return write_scaled(mean.to(flat.device), out, scale)

    def commit(self) -> None:
        """Nothing is remembered."""

    def roll_back(self) -> None:
        """Nothing is remembered."""
