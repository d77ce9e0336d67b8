"""Element-wise addition and copies of segments, wherever each lies."""

import torch

from laconic.kernels.tables import Integers, Vectors


def add_segments_reference(out: Vectors, x: Vectors, y: Vectors, numels: Integers) -> None:
    """The definition of :func:`laconic.kernels.add_segments`."""
    for s, numel in enumerate(numels.tolist()):
        first, second = (part.segment(s, numel).to(out.dtype) for part in (x, y))
        torch.add(first, second, out=out.segment(s, numel))


def copy_segments_reference(out: Vectors, x: Vectors, numels: Integers) -> None:
    """The definition of :func:`laconic.kernels.copy_segments`."""
    for s, numel in enumerate(numels.tolist()):
        out.segment(s, numel).copy_(x.segment(s, numel))
