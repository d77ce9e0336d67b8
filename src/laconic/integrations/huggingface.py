"""Hugging Face's Trainer: callbacks for the DDP hook and for the compressed optimisers."""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from laconic.comm import OnMismatch
from laconic.ddp import CommState, hook
from laconic.feedback import Feedback
from laconic.integrations.accelerate import prepare_without_ddp
from laconic.optim import CompressedOptimizer

FILE = "laconic.pt"
"""Every rank's memories, in a checkpoint's folder."""


class CompressedGradients(TrainerCallback):
    """Registers the hook, and keeps every rank's memories in the trainer's checkpoints.

    Args:
        trainer: to which it is added.
        feedback: the method.
        on_mismatch: "error", or "resync" as for :meth:`laconic.ddp.CommState.load_state_dict`; then a
            checkpoint without memories is adopted, too.
        resume_from: the checkpoint's folder; by default the one in ``output_dir`` with the step's number.
        settings: of :class:`laconic.ddp.CommState`.

    Attributes:
        state: the :class:`laconic.ddp.CommState`, once training has begun.
    """

    def __init__(
        self,
        trainer: Trainer,
        feedback: Feedback,
        on_mismatch: OnMismatch = "error",
        resume_from: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Add the callback to the trainer."""
        self.state: CommState | None = None
        self._trainer, self._feedback, self._settings = trainer, feedback, settings
        self._on_mismatch, self._resume_from = on_mismatch, resume_from
        trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Register the hook on DDP, which the trainer has made by now, and load the memories."""
        ddp = self._trainer.model_wrapped
        self.state = CommState(self._feedback, model=ddp, **self._settings)
        ddp.register_comm_hook(self.state, hook)
        if not state.global_step:
            return
        file = _file(args, state) if self._resume_from is None else Path(self._resume_from) / FILE
        if file.exists():
            self.state.load_state_dict(torch.load(file, weights_only=True), self._on_mismatch)
        elif self._on_mismatch == "error":
            raise FileNotFoundError(
                f"{file} is not there: give the checkpoint's folder as resume_from=; "
                'on_mismatch="resync" starts new memories'
            )
        else:
            logging.getLogger("laconic").warning("%s is not there; the memories start anew", file)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write every rank's memories beside the model."""
        assert self.state is not None
        gathered = self.state.state_dict(gather=True)
        if state.is_world_process_zero:
            torch.save(gathered, _file(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the exchange."""
        assert self.state is not None
        self.state.close()


class CompressedUpdates(TrainerCallback):
    """Lets a trainer work with a compressed optimiser, without DDP, and save the state of every rank.

    The optimiser is the trainer's: ``Trainer(..., optimizers=(optimizer, None))``.

    Args:
        trainer: to which it is added.
        optimizer: the compressed optimiser.
    """

    def __init__(self, trainer: Trainer, optimizer: CompressedOptimizer) -> None:
        """Add the callback to the trainer, and let its model be prepared without DDP."""
        self._optimizer = optimizer
        prepare_without_ddp(trainer.accelerator)
        trainer.add_callback(self)

    def _gather(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Whether it is saved as the best is known after all callbacks; the trainer then asks rank 0 alone.
        if control.should_save or args.save_strategy == "best":
            self._optimizer.consolidate_state_dict()

    on_step_end = on_epoch_end = on_evaluate = _gather


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
