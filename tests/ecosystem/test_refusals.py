"""What the integrations refuse, and what they find in the other packages."""

import inspect

import pytest
from accelerate import Accelerator
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import DDPStrategy
from transformers import Trainer as HuggingFaceTrainer

import laconic
from laconic.integrations.lightning import CompressedGradients


def test_lightning_without_ddp_is_refused(tmp_path):
    callback = CompressedGradients(laconic.EF14(laconic.TopK(0.1)))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[callback],
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(TypeError, match='needs DDP, Trainer\\(strategy="ddp"\\)'):
        trainer.fit(BoringModel())


def test_the_names_that_are_relied_on_are_there():
    assert "evaluation_mode" in inspect.signature(Accelerator.prepare_model).parameters
    assert hasattr(DDPStrategy, "configure_ddp")
    assert "model_wrapped" in inspect.getsource(HuggingFaceTrainer)
