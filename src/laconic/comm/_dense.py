"""One bucket of a dense step: the exact mean, past compressor and memories."""

import torch
from torch import Tensor

from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.comm._write import write
from laconic.layout import Layout
from laconic.messages import accumulation_dtype


class DenseChannel:
    """The segments of one bucket, averaged in float32 (float64 for float64), nodes in ascending order.

    The sum is the one that :class:`laconic.DCGD` with no compression makes, bit for bit. No flag has to say
    that a rank's numbers were not finite: the mean, which all ranks have alike, is then not finite either.
    """

    def __init__(self, layout: Layout, group: Group, counter: Counter) -> None:
        """Remember nothing but names."""
        self._layout = layout
        self._group = group
        self._counter = counter

    def run(self, source: Tensor, out: Tensor, scale: float) -> bool:
        """Write the mean over ranks; whether it was finite. Arguments as for ``Channel.run``."""
        if self._layout.d != source.numel():
            raise ValueError(
                f"the bucket of {self._layout.segments[0].name!r} has {self._layout.d} elements, got "
                f"{source.numel()}"
            )
        own = source.to("cpu", accumulation_dtype(source.dtype))
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
            return write(mean.to(source.device), out, scale)

    def commit(self) -> None:
        """Nothing is remembered."""

    def roll_back(self) -> None:
        """Nothing is remembered."""
