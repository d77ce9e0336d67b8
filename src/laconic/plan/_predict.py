"""Predicted times of a step, from measured costs of link, codec and computation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from laconic.comm.topologies import all_gather_bytes, ring_bytes
from laconic.comm.transport.collectives import DIRECT_BYTES

BUCKET_BYTES = 25 * 2**20
"""DDP's buckets: all but the last are sent while backward goes on."""
WORTH = 0.9
"""Compression is advised where the predicted step takes less than this share of the best dense one."""
CLOSE = 1.0
"""Per cent of loss that a method which is advised may cost."""
DENSE = ("fp32", "bf16")
"""Names of the methods that average whole gradients."""


@dataclass(frozen=True)
class LinkCosts:
    """What the ranks' link achieves, with PyTorch's collectives.

    Args:
        latency: seconds of one hop of a collective.
        all_gather: bytes a second that a rank sends in an all-gather.
        all_reduce: bytes a second that a rank sends in an all-reduce of float32.
        all_reduce_bf16: the same of bfloat16.
        direct_bytes: largest message that goes to all ranks at once; 0 where all go around a ring.
    """

    latency: float
    all_gather: float
    all_reduce: float
    all_reduce_bf16: float
    direct_bytes: int = DIRECT_BYTES


@dataclass(frozen=True)
class Compute:
    """A rank's training step without averaging, seconds.

    Args:
        forward: and whatever else backward does not overlap.
        backward: which dense averaging overlaps.
        optimizer: of the dense optimiser.
    """

    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0

    @property
    def step(self) -> float:
        """All of it."""
        return self.forward + self.backward + self.optimizer


@dataclass(frozen=True)
class Method:
    """A way to average, with its measured costs.

    Args:
        name: for the table.
        collective: of fp32, of bf16, or an all-gather of messages.
        message_bytes: that a rank hands to the collective: all numbers, or one message.
        own: seconds of its own work in a step besides the dense optimiser's: feedback, compressor, packing.
        each: seconds to unpack and add the message of one rank.
        every: steps between averages.
        loss_gap: how much worse than tuned dense AdamW's the final loss was in our study, per cent; None
            where it was not measured. 0 for dense methods.
        vector_bytes: of the float32 numbers that a message stands for: they travel in buckets, a message
            each, and where so many ranks' messages are more bytes than the exact mean ``topology="auto"``
            takes that. 0: a single message, whatever its bytes.
    """

    name: str
    collective: Literal["fp32", "bf16", "messages"]
    message_bytes: int
    own: float = 0.0
    each: float = 0.0
    every: int = 1
    loss_gap: float | None = None
    vector_bytes: int = 0


@dataclass(frozen=True)
class Prediction:
    """A step of one method, averaged over those between two exchanges.

    Args:
        method: its name.
        nodes: ranks.
        sent: bytes that a rank sends.
        communicate: seconds of the collective.
        codec: seconds of the method's own work.
        step: seconds of the step, with computation.
        loss_gap: of the method, per cent.
    """

    method: str
    nodes: int
    sent: float
    communicate: float
    codec: float
    step: float
    loss_gap: float | None = None

    @property
    def keeps_loss(self) -> bool:
        """Whether its measured loss is within :data:`CLOSE` per cent of the dense one."""
        return self.loss_gap is not None and self.loss_gap <= CLOSE


def predict(method: Method, link: LinkCosts, compute: Compute, nodes: int) -> Prediction:
    """The step of a method with so many ranks.

    A dense all-reduce is a ring, 2 (n - 1) hops, which overlaps with backward but for its last bucket. A
    bucket's message goes to n - 1 ranks once backward has ended, in two hops where it is short, else n - 1.
    Where the exact mean is fewer bytes, ``topology="auto"`` sends that, in two rounds and without the codec.

    Example:
        >>> link = LinkCosts(latency=0.0, all_gather=1e6, all_reduce=1e6, all_reduce_bf16=1e6)
        >>> predict(Method("x", "messages", 1000), link, Compute(forward=0.5), nodes=4).step
        0.503
    """
    share = 1 / method.every
    if method.collective == "messages":
        sent = float(all_gather_bytes(nodes, method.message_bytes))
        buckets = max(1, -(-method.vector_bytes // BUCKET_BYTES))
        # At once: a word that the receiver is ready, and the message.
        hops = buckets * (2 if method.message_bytes <= buckets * link.direct_bytes else nodes - 1)
        codec = method.own + (nodes - 1) * method.each
        if method.vector_bytes and sent > (mean := ring_bytes(nodes, method.vector_bytes)):
            sent, hops, codec = mean, 2 * (nodes - 1) * buckets, 0.0
        communicate = sent / link.all_gather + hops * link.latency
        exposed = communicate + codec
    else:
        sent = ring_bytes(nodes, method.message_bytes)
        rate = link.all_reduce if method.collective == "fp32" else link.all_reduce_bf16
        buckets = max(1, -(-method.message_bytes // BUCKET_BYTES))
        communicate = sent / rate + 2 * (nodes - 1) * link.latency * buckets
        codec = method.own
        exposed = codec + max(communicate / buckets, communicate - compute.backward * (1 - 1 / buckets))
    return Prediction(
        method.name,
        nodes,
        sent * share,
        communicate * share,
        codec * share,
        compute.step + exposed * share,
        method.loss_gap,
    )


def choose(predictions: Sequence[Prediction]) -> Prediction:
    """The fastest method that keeps the loss, or the fastest dense one, where compression gains little.

    Raises:
        ValueError: where no method is dense.
    """
    whole, best, _ = _candidates(predictions)
    return whole if best is None or best.step >= WORTH * whole.step else best


def _candidates(predictions: Sequence[Prediction]) -> tuple[Prediction, Prediction | None, list[Prediction]]:
    """The fastest dense method, the fastest other one that keeps the loss, and all others."""
    dense = [p for p in predictions if p.method in DENSE]
    if not dense:
        raise ValueError(f"the predictions need one of a dense method, {' or '.join(DENSE)}")
    others = [p for p in predictions if p.method not in DENSE]
    keeping = [p for p in others if p.keeps_loss]
    best = min(keeping, key=lambda p: p.step) if keeping else None
    return min(dense, key=lambda p: p.step), best, others


def advice(predictions: Sequence[Prediction], compute: Compute) -> str:
    """Which method to use, or that compression will not help, and why, and what is faster still.

    Only methods whose measured loss is within :data:`CLOSE` per cent of the dense one are advised.

    Raises:
        ValueError: where no method is dense.
    """
    whole, best, others = _candidates(predictions)
    if best is None or choose(predictions) is whole:
        words = (
            f"Do not compress: {whole.method} takes {_ms(whole.step)} a step, of which {_ms(compute.step)} "
            "are computation; "
        )
        if best is None:
            return words + f"no other method's measured loss is within {CLOSE:g} % of its."
        return words + (
            f"{best.method} would take {_ms(best.step)}. Its own work takes "
            f"{_ms(best.codec)}, while {whole.method} keeps the link busy for {_ms(whole.communicate)} only."
        )
    words = (
        f"Use {best.method}: {_ms(best.step)} a step, of which {_ms(compute.step)} are computation, "
        f"{whole.step / best.step:.1f} times as fast as {whole.method} ({_ms(whole.step)})."
    )
    if faster := [p for p in others if p.step < WORTH * best.step and p.loss_gap is not None]:
        fastest = min(faster, key=lambda p: p.step)
        words += (
            f" Faster, but its loss was {fastest.loss_gap:g} % worse: {fastest.method}, {_ms(fastest.step)}."
        )
    return words


def _ms(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"
