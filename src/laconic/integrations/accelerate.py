"""Accelerate: the hook on a prepared model, and models that are prepared without DDP."""

from functools import partial
from typing import Any

from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from laconic.ddp import CommState, hook
from laconic.feedback import Feedback
from laconic.optim import CompressedOptimizer


def compress_gradients(
    accelerator: Accelerator, model: DistributedDataParallel, feedback: Feedback, **settings: Any
) -> CommState:
    """Register the hook on a prepared model; ``save_state`` and ``load_state`` keep every rank's memories.

    Args:
        accelerator: which has prepared the model.
        model: as ``prepare`` returned it, with DDP around it.
        feedback: the method.
        settings: of :class:`laconic.ddp.CommState`.
    """
    state = CommState(feedback, model=model, **settings)
    model.register_comm_hook(state, hook)
    accelerator.register_for_checkpointing(state)
    save_every_rank(accelerator, state)
    return state


def prepare_without_ddp(accelerator: Accelerator) -> Accelerator:
    """Let ``prepare`` put no DDP around models, for a compressed optimiser; everything else stays."""
    accelerator.prepare_model = partial(accelerator.prepare_model, evaluation_mode=True)
    return accelerator


def save_every_rank(accelerator: Accelerator, state: CommState | CompressedOptimizer) -> None:
    """Let ``save_state`` gather every rank's memories, and moments, first; all ranks call it anyway."""
    accelerator.register_save_state_pre_hook(lambda models, weights, folder: state.consolidate_state_dict())
