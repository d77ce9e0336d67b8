"""Optimisers that compress what they send: each replaces both DDP and the optimiser behind it."""

from laconic.optim._adamw import CompressedAdamW
from laconic.optim._base import CompressedOptimizer
from laconic.optim._sgd import CompressedSGD

__all__ = ["CompressedAdamW", "CompressedOptimizer", "CompressedSGD"]
