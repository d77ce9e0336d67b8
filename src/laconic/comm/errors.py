"""The error of an exchange that cannot go on."""


class ExchangeError(RuntimeError):
    """A rank died, hung, or sent something that does not belong here; the exchange is over."""
