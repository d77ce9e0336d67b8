"""Optimisers that compress what they send: each replaces both DDP and the optimiser behind it."""

from laconic.optim._adamw import CompressedAdamW
from laconic.optim._base import CompressedOptimizer
from laconic.optim._local import LocalSteps
from laconic.optim._sgd import CompressedSGD
from laconic.optim._signum import CompressedSignum
from laconic.session import density_warm_up

__all__ = [
    "CompressedAdamW",
    "CompressedOptimizer",
    "CompressedSGD",
    "CompressedSignum",
    "LocalSteps",
    "density_warm_up",
]
