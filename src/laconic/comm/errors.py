"""Errors of an exchange that cannot go on."""


class ExchangeError(RuntimeError):
    """A rank died, hung, or sent something that does not belong here; the exchange is over."""


class RanksDifferError(ExchangeError, ValueError):
    """The ranks have different settings or memories, or are at different points of their programs."""
