"""The exchange of messages over ``torch.distributed``."""

from laconic.comm._agreement import Alike as Alike
from laconic.comm._agreement import crc32_of as crc32_of
from laconic.comm._checkpoint import OnMismatch as OnMismatch
from laconic.comm._stats import Stats as Stats
from laconic.comm.errors import ExchangeError as ExchangeError
from laconic.comm.errors import RanksDifferError as RanksDifferError
from laconic.comm.exchange import Exchange as Exchange
from laconic.comm.topologies import Destination as Destination
from laconic.comm.topologies import Source as Source
from laconic.comm.topologies import Topology as Topology
from laconic.comm.topologies import Vector as Vector
from laconic.comm.transport.streams import TensorFuture as TensorFuture
from laconic.comm.transport.streams import future_of as future_of
from laconic.comm.transport.streams import wait_for as wait_for
