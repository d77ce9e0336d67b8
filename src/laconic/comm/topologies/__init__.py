"""Topologies: who sends what to whom, and the state that each rank keeps."""

from laconic.comm.topologies._choice import all_gather_bytes as all_gather_bytes
from laconic.comm.topologies._choice import bytes_above_dense as bytes_above_dense
from laconic.comm.topologies._choice import choose_topology as choose_topology
from laconic.comm.topologies._choice import named_topology as named_topology
from laconic.comm.topologies._choice import ring_bytes as ring_bytes
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
