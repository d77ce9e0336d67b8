"""Compressed gradients under ``DistributedDataParallel``: a state and a communication hook."""

from laconic.training._ddp_state import CommState, hook

__all__ = ["CommState", "hook"]
