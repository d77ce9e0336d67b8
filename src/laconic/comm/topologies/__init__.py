"""Topologies: who sends what to whom, and the state that each rank keeps."""

from laconic.comm.topologies._protocol import BucketContext as BucketContext
from laconic.comm.topologies._protocol import BucketExchange as BucketExchange
from laconic.comm.topologies._protocol import RemembersAlike as RemembersAlike
from laconic.comm.topologies._protocol import SegmentStates as SegmentStates
from laconic.comm.topologies._protocol import Topology as Topology
from laconic.comm.topologies._vectors import Destination as Destination
from laconic.comm.topologies._vectors import Source as Source
from laconic.comm.topologies._vectors import Vector as Vector
from laconic.comm.topologies._vectors import numel as numel
from laconic.comm.topologies._vectors import unscaled as unscaled
from laconic.comm.topologies._vectors import write_scaled as write_scaled
from laconic.comm.topologies.all_gather import AllGather as AllGather
from laconic.comm.topologies.dense import Dense as Dense

NAMES = ("auto", "all-gather", "dense")


def topology_of(name_or_object: str | Topology) -> Topology:
    """The topology of a name, or the object itself; "auto" is all-gather.

    Raises:
        ValueError: for an unknown name, or an object that is no topology.

    Example:
        >>> topology_of("auto")
        AllGather()
    """
    if callable(getattr(name_or_object, "make_bucket", None)) and hasattr(name_or_object, "name"):
        return name_or_object  # type: ignore[return-value]
    if name_or_object not in NAMES:
        raise ValueError(f"topology must be one of {NAMES} or an object, got {name_or_object!r}")
    return Dense() if name_or_object == "dense" else AllGather()
