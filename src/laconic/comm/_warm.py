"""JIT warm-up of an exchange."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
import torch.distributed as dist

from laconic.comm.topologies import Vector
from laconic.comm.topologies._vectors import parts_by_dtype
from laconic.feedback import Feedback, NotFiniteError
from laconic.formats import accumulation_dtype
from laconic.kernels import compilation, sharing_threads, warm_up_adaptive
from laconic.layout import Layout
from laconic.wire import pack_into, packed_size, read_frame, row_kernels, unpack

_LENGTH = 1 << 15
"""Long enough for every compiled loop of one thread to be used."""
_SHARED_LENGTH = 1 << 18
"""And of several threads, where they are to share short vectors."""
_ROUNDS = 2
_STEPS = 5


def warm_up(
    layout: Layout,
    feedback: Feedback,
    dtypes: Mapping[str, torch.dtype] | None = None,
    *,
    adaptive: bool = False,
    device: torch.device | None = None,
) -> None:
    """Compile, or load from disk, the loops that the method needs from gradient to estimate.

    Rounds of two nodes are run on numbers that nobody sees, in segments of every rule of the layout. Of
    several processes that call it at once one compiles, and the others wait until its loops are on disk.

    Args:
        layout: of which only the rules and the sizes matter.
        feedback: the method.
        dtypes: of the segments' gradients, by name; float32 where it has none.
        adaptive: whether positions travel in blocks that adapt to their density.
        device: where all segments' gradients lie; None: not known. On a GPU with Triton only what goes by way
            of main memory needs loops for CPUs.

    Example:
        >>> import laconic
        >>> warm_up(laconic.Layout.flat(100), laconic.EF14(laconic.TopK(1)))
    """
    parts = parts_by_dtype(layout, dtypes)
    first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
    with torch.no_grad(), compilation(_STEPS * _ROUNDS * len(parts), speaks=first) as progress:
        if adaptive:
            warm_up_adaptive()
        for dtype, part in parts.items():
            if device is None or adaptive or not _stays_on(device, part, feedback, dtype):
                _warm_up_one(part, feedback, dtype, adaptive, progress.step)


def _stays_on(device: torch.device, layout: Layout, feedback: Feedback, dtype: torch.dtype) -> bool:
    """Whether messages are made, packed, unpacked and added on the device in all rounds."""
    like, wide = torch.empty(0, dtype=dtype, device=device), accumulation_dtype(dtype)
    return all(row_kernels(feedback.format(layout, wide, round), like) for round in range(_ROUNDS))


def _warm_up_one(
    layout: Layout, feedback: Feedback, dtype: torch.dtype, adaptive: bool, step: Callable[[], None]
) -> None:
    """Warm up for segments of one dtype."""
    compressed = [segment.numel for segment in layout.segments if segment.rule == "compress"]
    longest, total = max(compressed, default=8), sum(compressed)
    others = {segment.rule for segment in layout.segments} - {"compress"}
    length = min(max(_LENGTH, total // 32), _SHARED_LENGTH, longest)
    for d in dict.fromkeys((length, longest)):
        shapes = {"compress": (d,)} if compressed else {}
        small = Layout.of(
            shapes | dict.fromkeys(sorted(others), (8,)),
            exact=others & {"exact"},
            bfloat16=others & {"bfloat16"},
        )
        try:
            feedback.sender(small)
        except ValueError:  # the compressor wants a longer vector
            continue
        with sharing_threads(total):
            _run_rounds(small, feedback, dtype, adaptive, step)
        return


def _run_rounds(
    layout: Layout, feedback: Feedback, dtype: torch.dtype, adaptive: bool, step: Callable[[], None]
) -> None:
    senders = [feedback.sender(layout, node=node, dtype=dtype) for node in range(2)]
    receiver = feedback.receiver(layout, 2, dtype=dtype)
    tensors = [torch.linspace(-1, 1, segment.numel, dtype=dtype, device="cpu") for segment in layout.segments]
    # What a loss scale or a clip has changed is flat, in the accumulation dtype.
    scaled = torch.cat(tensors).to(accumulation_dtype(dtype))
    for round in range(_ROUNDS):
        expected = feedback.format(layout, scaled.dtype, round)
        expected = expected.adapted() if adaptive else expected
        messages = []
        sources: tuple[Vector, ...] = (tensors, scaled)
        for sender, source in zip(senders, sources, strict=True):
            sender.stage(source)
            sender.roll_back()
            messages.append(sender.send(source))
        for segment in layout.segments:
            void = scaled.clone()
            void[segment.offset] = torch.nan
            with suppress(NotFiniteError):
                senders[0].stage(void)
            senders[0].roll_back()
        step()
        frames = [
            torch.zeros(packed_size(each, expect=expected), dtype=torch.uint8, device="cpu")
            for each in messages
        ]
        for message, frame in zip(messages, frames, strict=True):
            pack_into(message, frame, expect=expected)
        step()
        messages = [unpack(frame, frame=read_frame(frame), expect=expected) for frame in frames]
        step()
        receiver.stage(messages, out=tensors)
        receiver.roll_back()
        step()
        receiver.stage(messages, out=scaled)
        receiver.commit()
        step()
