"""Methods of the demo, with tuned learning rates.

All have the same model, data, batches, warm-up and cosine, and no weight decay; every node clips its own
gradient to 0.5. Betas are those of an earlier grid on a smaller model. Validation loss after 200 steps, one
seed, by learning rate; differences below 0.03 are noise:

    bf16 all-reduce, AdamW with beta1 0.7            0.002  2.096   0.004  2.028   0.006 2.050   0.008 2.315
    CompressedAdamW, 1 % of each 4,096, 1 bit        0.004  2.202   0.006  2.150   0.008 2.136   0.012 2.324
    EF14 on 1 % of gradients, AdamW with beta1 0     0.002  2.238   0.004  2.200   0.008 2.495
    EF21 on 1 % of gradients, AdamW with beta1 0     0.0005 2.706   0.001  2.750   0.002 2.793
"""

from dataclasses import dataclass
from typing import Literal

import torch

from laconic.compressors import BlockTopK, Cast, ScaledSign, TopK
from laconic.feedback import EF14, EF21, Feedback


@dataclass(frozen=True)
class Method:
    """A way to exchange gradients or updates, with its optimiser's settings.

    Args:
        name: short, for the command line.
        label: for the table and the figure.
        sends: "all" (bf16 all-reduce of gradients), "gradient", or "update" (CompressedAdamW).
        feedback: what it goes through; None for all-reduce.
        lr: peak learning rate.
        beta1: Adam's first beta.
        beta2: its second.
        clip: norm to which every node shortens its gradient.
        colour: in the figure.
    """

    name: str
    label: str
    sends: Literal["all", "gradient", "update"]
    feedback: Feedback | None
    lr: float
    beta1: float
    beta2: float
    clip: float | None
    colour: str


_GRADIENTS = TopK(0.01) >> Cast(torch.bfloat16)
_UPDATES = BlockTopK(41, 4096) >> ScaledSign()

METHODS = (
    Method("bf16", "bf16 all-reduce", "all", None, 4e-3, 0.7, 0.999, 0.5, "#7f7f7f"),
    Method("recommended", "CompressedAdamW 1-bit", "update", EF14(_UPDATES), 8e-3, 0.0, 0.99, 0.5, "#009E73"),
    Method("ef14", "EF14 on gradients", "gradient", EF14(_GRADIENTS), 4e-3, 0.0, 0.999, 0.5, "#E69F00"),
    Method("ef21", "EF21 on gradients", "gradient", EF21(_GRADIENTS), 5e-4, 0.0, 0.999, 0.5, "#0072B2"),
)
