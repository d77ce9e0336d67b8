"""Lightning: compressed gradients under its DDP strategy, and a strategy for the compressed optimisers."""

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from laconic.comm import OnMismatch
from laconic.ddp import CommState, hook
from laconic.feedback import Feedback


class CompressedGradients(Callback):
    """Registers the hook on CPU and GPU, and keeps every rank's memories in the trainer's checkpoints.

    Args:
        feedback: the method.
        on_mismatch: as for :meth:`laconic.ddp.CommState.load_state_dict`.
        settings: of :class:`laconic.ddp.CommState`.

    Attributes:
        state: the :class:`laconic.ddp.CommState` while the trainer fits, else None.
    """

    def __init__(self, feedback: Feedback, on_mismatch: OnMismatch = "error", **settings: Any) -> None:
        """Keep the settings until there is a model."""
        self.state: CommState | None = None
        self._feedback, self._on_mismatch, self._settings = feedback, on_mismatch, settings
        self._saved: Mapping[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the hook, and load what the checkpoint has."""
        ddp = trainer.strategy.model
        if not isinstance(ddp, DistributedDataParallel):
            raise TypeError(
                'CompressedGradients needs DDP, Trainer(strategy="ddp"); there is a '
                f"{type(ddp).__name__}, whose gradients nobody exchanges through a hook"
            )
        self.state = CommState(self._feedback, model=ddp, **self._settings)
        ddp.register_comm_hook(self.state, hook)
        if self._saved is not None:
            self.state.load_state_dict(self._saved, self._on_mismatch)
            self._saved = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where a checkpoint without memories was loaded."""
        if (
            trainer.global_step
            and self.state is not None
            and not self.state.iteration
            and not trainer.global_rank
        ):
            logging.getLogger("laconic").warning("the checkpoint has no memories; they start anew")

    def state_dict(self) -> dict[str, Any]:
        """Every rank's memories, on rank 0; the trainer calls it on all ranks."""
        return {} if self.state is None else self.state.state_dict(gather=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the memories until there is a model."""
        self._saved = state_dict

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the exchange."""
        if self.state is not None:
            self.state.close()
        self.state = None


class CompressedOptimizerStrategy(DDPStrategy):
    """DDP's processes and samplers without DDP around the model, for a compressed optimiser.

    The trainer saves every rank's moments and memories, because the optimisers have
    ``consolidate_state_dict``.
    """

    def configure_ddp(self) -> None:
        """Leave the model alone: the optimiser communicates."""
