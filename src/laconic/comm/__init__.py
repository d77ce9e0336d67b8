"""The exchange of messages over ``torch.distributed``."""

from laconic.comm._errors import ExchangeError as ExchangeError
from laconic.comm._stats import Stats as Stats
from laconic.comm.exchange import Exchange as Exchange
