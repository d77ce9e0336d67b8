"""JIT warm-up of an exchange."""

import torch

from laconic.feedback import Feedback
from laconic.kernels import warm_up as warm_up_kernels
from laconic.layout import Layout
from laconic.wire import pack_into, read_frame, unpack

_LENGTH = 1 << 15
"""Long enough for every compiled loop to be used."""


def warm_up(layout: Layout, feedback: Feedback, dtype: torch.dtype = torch.float32) -> None:
    """Compile, or load from disk, the loops that the method needs from gradient to estimate.

    Two rounds of two nodes are run on numbers that nobody sees, in segments of every rule of the layout.

    Args:
        layout: of which only the rules and the longest segment matter: a compressor may not fit a shorter
            one.
        feedback: the method.
        dtype: of the gradients.

    Example:
        >>> import laconic
        >>> warm_up(laconic.Layout.flat(100), laconic.EF14(laconic.TopK(1)))
    """
    warm_up_kernels()
    lengths = [segment.numel for segment in layout.segments if segment.rule == "compress"]
    for d in dict.fromkeys((min(_LENGTH, max(lengths, default=8)), max(lengths, default=8))):
        shapes = {"compress": (d,)} if lengths else {}
        others = {segment.rule for segment in layout.segments} - {"compress"}
        small = Layout.of(
            shapes | dict.fromkeys(sorted(others), (8,)),
            exact=others & {"exact"},
            bfloat16=others & {"bfloat16"},
        )
        try:
            _two_rounds(small, feedback, dtype)
        except ValueError:  # the compressor wants a longer vector
            continue
        return


def _two_rounds(layout: Layout, feedback: Feedback, dtype: torch.dtype) -> None:
    senders = [feedback.sender(layout, node=node, dtype=dtype) for node in range(2)]
    receiver = feedback.receiver(layout, 2, dtype=dtype)
    tensors = [torch.linspace(-1, 1, segment.numel, dtype=dtype) for segment in layout.segments]
    for round in range(2):
        expected = feedback.format(layout, dtype, round)
        messages = []
        for sender in senders:
            frame = torch.zeros(expected.max_nbytes, dtype=torch.uint8)
            size = pack_into(sender.send(tensors), frame, expect=expected)
            messages.append(unpack(frame[:size], frame=read_frame(frame), expect=expected))
        receiver.stage(messages, out=tensors)
        receiver.commit()
