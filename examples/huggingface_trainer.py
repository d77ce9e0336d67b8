"""Train a small GPT-2 with Hugging Face's Trainer: compressed gradients, or CompressedAdamW without DDP.

    torchrun --nproc-per-node 2 examples/huggingface_trainer.py --folder huggingface-out
    torchrun --nproc-per-node 2 examples/huggingface_trainer.py --folder huggingface-out --optimizer

With --resume it goes on from the trainer's last checkpoint, bit for bit.
"""

import argparse
import zlib
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import laconic
from laconic.integrations.huggingface import CompressedGradients, CompressedUpdates

FEEDBACK = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())


class Counting(Dataset):
    """Sequences that count upwards, each from another number."""

    def __len__(self) -> int:
        """Number of sequences."""
        return 512

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A sequence, which is its own target."""
        ids = (torch.arange(16) + index) % 64
        return {"input_ids": ids, "labels": ids}


def main() -> None:
    """Learn to count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-steps", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("huggingface-out"))
    parser.add_argument("--optimizer", action="store_true", help="CompressedAdamW, without DDP")
    parser.add_argument("--resume", type=Path, help="folder of a checkpoint")
    options = parser.parse_args()

    arguments = TrainingArguments(
        output_dir=str(options.folder),
        max_steps=options.steps,
        save_steps=options.save_steps,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    if options.optimizer:
        source = laconic.optim.CompressedAdamW(model.named_parameters(), lr=4e-3)
        trainer = Trainer(model, arguments, train_dataset=Counting(), optimizers=(source, None))
        CompressedUpdates(trainer, source)
    else:
        trainer = Trainer(model, arguments, train_dataset=Counting())
        callback = CompressedGradients(trainer, FEEDBACK, resume_from=options.resume)
    done = trainer.train(resume_from_checkpoint=None if options.resume is None else str(options.resume))

    stats = (source if options.optimizer else callback.state).stats()
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    print(
        f"rank {arguments.process_index}: loss {done.training_loss:.4f}, "
        f"{100 * stats.ratio_to_bf16:.1f} % of a bf16 all-reduce, "
        f"weights {zlib.crc32(weights.numpy().tobytes()):08x}"
    )
    if options.optimizer:
        source.close()


if __name__ == "__main__":
    main()
