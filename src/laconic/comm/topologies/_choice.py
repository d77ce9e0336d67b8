"""The choice of a topology, by name or by the bytes that each would move."""

import logging
from collections.abc import Mapping

import torch

from laconic.comm.topologies._protocol import Topology
from laconic.comm.topologies._vectors import parts_by_dtype
from laconic.comm.topologies.all_gather import AllGather
from laconic.comm.topologies.dense import Dense
from laconic.feedback import Feedback
from laconic.formats import accumulation_dtype
from laconic.layout import Layout

NAMES = ("auto", "all-gather", "dense")
_log = logging.getLogger("laconic")


def all_gather_bytes(nodes: int, message: float) -> float:
    """Bytes that a rank sends in an all-gather of messages of so many bytes: one to each other rank."""
    return (nodes - 1) * message


def ring_bytes(nodes: int, vector: float) -> float:
    """Bytes that a rank sends where a vector of so many bytes is averaged by shares, as in a ring.

    Example:
        >>> ring_bytes(4, 100.0)
        150.0
    """
    return 2 * (nodes - 1) / nodes * vector


def named_topology(name_or_object: str | Topology) -> str | Topology:
    """A topology's name or the object itself, once checked.

    Raises:
        ValueError: for an unknown name, or an object that is no topology.
    """
    is_topology = callable(getattr(name_or_object, "make_bucket", None)) and hasattr(name_or_object, "name")
    if not is_topology and name_or_object not in NAMES:
        raise ValueError(f"topology must be one of {NAMES} or an object, got {name_or_object!r}")
    return name_or_object


def choose_topology(
    name_or_object: str | Topology,
    layout: Layout,
    feedback: Feedback,
    nodes: int,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> Topology:
    """The topology of a name, or the object itself; "auto" by the bytes of a step.

    "auto" is all-gather, but dense where the messages to all other ranks hold more bytes than the exact mean
    would move: then compression costs more than it saves, and the log says so. It follows from settings and
    sizes alone, never from timing, so that it is alike on all ranks and after a resume. Where the number of
    kept coordinates is drawn, sizes are not known, and it is all-gather.

    Args:
        name_or_object: "auto", "all-gather", "dense", or an object.
        layout: the segments.
        feedback: the method.
        nodes: how many ranks.
        dtypes: of each segment's numbers, by name; float32 where it has none.

    Raises:
        ValueError: for an unknown name, or an object that is no topology.

    Example:
        >>> import laconic
        >>> layout, feedback = laconic.Layout.flat(1_000_000), laconic.EF14("top-k:0.01 + cast:bf16")
        >>> choose_topology("auto", layout, feedback, nodes=4).name
        'all-gather'
        >>> choose_topology("auto", layout, feedback, nodes=1024).name
        'dense'
    """
    named = named_topology(name_or_object)
    if not isinstance(named, str):
        return named
    if named != "auto":
        return Dense() if named == "dense" else AllGather()
    sizes = bytes_above_dense(layout, feedback, nodes, dtypes)
    if sizes is None:
        return AllGather()
    sent, dense = sizes
    _log.warning(
        "with %d ranks each would send %.3g MB of messages a step, and %.3g MB for the exact mean: the mean "
        "is taken (topology='dense'). Keep less, use fewer ranks, or pass topology='all-gather'",
        nodes,
        sent / 1e6,
        dense / 1e6,
    )
    return Dense()


def bytes_above_dense(
    layout: Layout,
    feedback: Feedback,
    nodes: int,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> tuple[float, float] | None:
    """Bytes that a rank sends in a step, by all-gather and for the exact mean, where the former are more.

    None where they are not, or where the sizes of messages are not known. Arguments are those of
    :func:`choose_topology`.

    Example:
        >>> import laconic
        >>> layout, feedback = laconic.Layout.flat(1_000_000), laconic.EF14("top-k:0.01 + cast:bf16")
        >>> bytes_above_dense(layout, feedback, nodes=4) is None
        True
        >>> sent, dense = bytes_above_dense(layout, feedback, nodes=1024)
        >>> sent > dense
        True
    """
    messages, vectors = _step_bytes(layout, feedback, dtypes)
    if messages is None:
        return None
    sent, dense = all_gather_bytes(nodes, messages), ring_bytes(nodes, vectors)
    return (sent, dense) if sent > dense else None


def _step_bytes(
    layout: Layout, feedback: Feedback, dtypes: Mapping[str, torch.dtype] | None
) -> tuple[int | None, int]:
    """Bytes of a rank's messages after the first round, heads aside, if known, and of its numbers."""
    parts = parts_by_dtype(layout, dtypes)
    formats = [feedback.format(part, dtype, 1) for dtype, part in parts.items()]
    vectors = sum(part.d * accumulation_dtype(dtype).itemsize for dtype, part in parts.items())
    if not all(one.fixed for one in formats):
        return None, vectors
    return sum(one.sections_nbytes for one in formats), vectors
