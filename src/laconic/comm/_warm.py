"""Compiling ahead what the first steps would else have to wait for."""

import torch

from laconic.feedback import Feedback
from laconic.kernels import warm_up as warm_up_kernels
from laconic.layout import Layout
from laconic.wire import pack, unpack

_LENGTH = 1 << 15
"""Long enough for every compiled loop to be used."""


def warm_up(layout: Layout, feedback: Feedback) -> None:
    """Compile, or load from disk, the loops that the method needs from gradient to estimate.

    Two rounds of a single node are run on numbers that nobody sees.

    Args:
        layout: only its largest segment's length matters: a compressor may not fit a shorter one.
        feedback: the method.

    Example:
        >>> import laconic
        >>> warm_up(laconic.Layout.flat(100), laconic.EF14(laconic.TopK(1)))
    """
    warm_up_kernels()
    lengths = [segment.numel for segment in layout.segments if segment.rule == "compress"]
    if not lengths:
        return
    for d in dict.fromkeys((min(_LENGTH, max(lengths)), max(lengths))):
        try:
            sender, receiver = feedback.sender(d), feedback.receiver(d, 1)
        except ValueError:  # the compressor wants a longer vector
            continue
        gradient = torch.linspace(-1, 1, d)
        for _ in range(2):
            message = sender.send(gradient)
            receiver.receive([unpack(pack(message))], out=gradient)
        return
