"""Vectors that a bucket is given and written to, and the loss scale on them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from laconic.formats import accumulation_dtype
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout

Vector = Tensor | Sequence[Tensor]
"""A flat vector (d,), or a tensor for each segment."""
Source = Vector | SegmentedVector
"""A vector that is only read; of a segmented one, numbers may be computed as they are read."""
Destination = Vector | SegmentedVector
"""A vector that is only written; of a segmented one, the numbers may be deferred."""


def parts_by_dtype(layout: Layout, dtypes: Mapping[str, torch.dtype] | None) -> dict[torch.dtype, Layout]:
    """The segments of each dtype, in their order; float32 where a segment has none by name."""
    names: dict[torch.dtype, list[str]] = {}
    for segment in layout.segments:
        names.setdefault((dtypes or {}).get(segment.name, torch.float32), []).append(segment.name)
    return {dtype: layout.select(own) for dtype, own in names.items()}


def numel(vector: Source) -> int:
    """How many numbers it has."""
    if isinstance(vector, SegmentedVector):
        assert vector.flat is not None
        return vector.flat.numel()
    return vector.numel() if isinstance(vector, Tensor) else sum([tensor.numel() for tensor in vector])


def unscaled(source: Source, scale: float) -> Source:
    """The source divided by its loss scale, in its accumulation dtype; itself where the scale is 1."""
    if scale == 1.0:
        return source
    flat = SegmentedVector.of(source).flattened()
    return flat.to(accumulation_dtype(flat.dtype)) / scale


def write_scaled(estimate: Tensor, out: Vector, scale: float) -> bool:
    """``out <- estimate * scale``; whether out's dtype could hold it.

    A loss scale may push an estimate out of float16's range. All ranks have the same estimate, so all see
    it; the step is then void, as it is for a gradient that overflowed.
    """
    if scale != 1.0:
        estimate = estimate * scale
    tensors = (out,) if isinstance(out, Tensor) else out
    SegmentedVector.of(out).write(estimate)
    return all(t.dtype != torch.float16 or bool(torch.isfinite(t).all()) for t in tensors)
