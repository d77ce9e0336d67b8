"""Optimisers that compress what they send: each replaces both DDP and the optimiser behind it."""

from laconic.training._adamw import CompressedAdamW
from laconic.training._sgd import CompressedSGD

__all__ = ["CompressedAdamW", "CompressedSGD"]
