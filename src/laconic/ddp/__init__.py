"""Compressed gradients under ``DistributedDataParallel``: a state and a communication hook."""

from laconic.ddp._state import CommState, hook

__all__ = ["CommState", "hook"]
