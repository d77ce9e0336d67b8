"""Emulated networks on one machine, traffic counters, and ranks as processes of such a network."""

from laconic.network._network import DEVICE as DEVICE
from laconic.network._network import HEADERS as HEADERS
from laconic.network._network import Isolation as Isolation
from laconic.network._network import Link as Link
from laconic.network._network import Network as Network
from laconic.network._network import Traffic as Traffic
from laconic.network._network import die_with_parent as die_with_parent
from laconic.network._network import isolation as isolation
from laconic.network._network import parse_rate as parse_rate
from laconic.network._ranks import Ranks as Ranks
from laconic.network._ranks import enter_rank as enter_rank
