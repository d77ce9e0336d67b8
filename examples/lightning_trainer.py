"""Train with Lightning: compressed gradients under DDP, or CompressedAdamW without it.

    torchrun --nproc-per-node 2 examples/lightning_trainer.py --epochs 3 --folder lightning-out
    torchrun --nproc-per-node 2 examples/lightning_trainer.py --epochs 3 --folder lightning-out --optimizer

Run it again with more epochs, and it goes on from the trainer's own checkpoint, bit for bit.
"""

import argparse
import os
import zlib
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import laconic
from laconic.integrations.lightning import CompressedGradients, CompressedOptimizerStrategy

FEEDBACK = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())


class Regression(LightningModule):
    """Learns what a random network does."""

    def __init__(self, compressed: bool) -> None:
        """Make the network."""
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16))
        self.compressed = compressed

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss."""
        x, y = batch
        return nn.functional.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An ordinary optimiser, or the compressed one."""
        if not self.compressed:
            return torch.optim.AdamW(self.parameters(), lr=2e-3)
        self.optimizer = laconic.optim.CompressedAdamW(self.named_parameters(), lr=4e-3)
        return self.optimizer


def main() -> None:
    """Train, and go on from a checkpoint that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("lightning-out"))
    parser.add_argument("--optimizer", action="store_true", help="CompressedAdamW, without DDP")
    options = parser.parse_args()

    torch.manual_seed(0)
    x = torch.randn(512, 64)
    data = TensorDataset(x, torch.tanh(x @ torch.randn(64, 16) / 8))
    model = Regression(options.optimizer)
    hook = CompressedGradients(FEEDBACK, timeout_s=60)
    trainer = Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=CompressedOptimizerStrategy() if options.optimizer else "ddp",
        callbacks=[] if options.optimizer else [hook],
        max_epochs=options.epochs,
        default_root_dir=options.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    file = options.folder / "last.ckpt"
    saved = _SaveAtEnd(file, hook, model)
    trainer.callbacks.append(saved)
    trainer.fit(model, DataLoader(data, batch_size=16), ckpt_path=file if file.exists() else None)
    stats = saved.stats
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    loss = nn.functional.mse_loss(model.network(data.tensors[0]), data.tensors[1]).item()
    share = 100 * stats.ratio_to_bf16
    print(
        f"rank {trainer.global_rank}: loss {loss:.4f}, {share:.1f} % of a bf16 all-reduce, "
        f"weights {zlib.crc32(weights.numpy().tobytes()):08x}"
    )


class _SaveAtEnd(laconic.integrations.lightning.Callback):
    """Saves once training ends, and keeps the statistics."""

    def __init__(self, file: Path, hook: CompressedGradients, model: Regression) -> None:
        self.file, self.hook, self.model = file, hook, model

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.file)
        source = self.model.optimizer if self.model.compressed else self.hook.state
        self.stats = source.stats()


if __name__ == "__main__":
    main()
