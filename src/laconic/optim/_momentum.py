"""A warning about momentum together with sparse error feedback."""

import warnings

import torch

from laconic.compressors import Compressor
from laconic.feedback import DCGD, Feedback
from laconic.layout import Layout

_SPARSE = 0.05


def warn_of_momentum(what: str, feedback: Feedback, layout: Layout, stacklevel: int) -> bool:
    """Warn where error feedback keeps so little that it averages like momentum already; whether it does."""
    if isinstance(feedback, DCGD) or kept_share(feedback.compressor, layout) >= _SPARSE:
        return False
    warnings.warn(
        f"{what} together with {feedback!r}: error feedback that keeps less than 5 % of the coordinates "
        "already averages each over tens of steps, and momentum delays them once more. In our first study "
        f"this cost up to 20 % in loss; set {what.split(maxsplit=1)[0]} to 0",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
    return True


def kept_share(compressor: Compressor, layout: Layout) -> float:
    """The share of the compressed segments' coordinates that a message names; 1 where none is compressed.

    Example:
        >>> import laconic
        >>> kept_share(laconic.TopK(0.01) >> laconic.ScaledSign(), Layout.flat(1000))
        0.01
    """
    compressed = [segment.numel for segment in layout.segments if segment.rule == "compress"]
    if not compressed:
        return 1.0
    return sum(compressor.structure(d, torch.float32).k for d in compressed) / sum(compressed)
