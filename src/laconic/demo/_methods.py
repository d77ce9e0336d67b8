"""Methods of the demo, with tuned learning rates.

All have the same model, data, batches, warm-up and cosine, and no weight decay; every node clips its own
gradient. Of what is left to a method, the best of a small grid is used. Validation loss after 300 steps, one
seed; differences below 0.03 are noise:

    bf16 all-reduce, AdamW
      lr at beta1 0.7, clip 0.5      0.003  1.985   0.005  1.947   0.006  1.925   0.008  2.006
      beta1 at lr 0.006, clip 0.5    0.5    1.985   0.7    1.925   0.8    1.945
      clip at lr 0.006, beta1 0.7    0.25   1.921   0.5    1.925   1.0    1.949
    1 % of gradients, values in bf16, AdamW with beta1 0 behind, clip 0.5, by lr
      no feedback                    0.002  2.381   0.004  2.331   0.008  2.366
      EF14                           0.002  2.195   0.004  2.073   0.008  2.092
      EF21                           0.0005 2.689   0.001  2.684   0.002  2.804   0.004  2.936
    CompressedAdamW at 1 %, beta1 0, clip 0.5, by lr
      values in bf16                 0.006  2.030   0.008  1.992   0.010  1.982   0.012  2.082
      1-bit values                   0.008  1.998   0.010  2.007

The dense rows are of float32 AdamW in one process, where the bf16 all-reduce of four gave 1.929 for the
chosen one. After 400 steps, with two seeds: bf16 all-reduce 1.827 and 1.821, CompressedAdamW 1.883 and 1.882
with lr 0.008, 1.865 and 1.887 with 0.010. A second seed after 300 steps: bf16 all-reduce 1.907,
CompressedAdamW with lr 0.008 2.001, with 1-bit values 2.010.

The first weights matter as much as the methods. With PyTorch's own the dense baseline reached 1.997 at best,
CompressedAdamW 2.149 and EF14 on gradients 2.180; with embeddings of 0.02 instead of 0.1 the dense baseline
reached 1.968, CompressedAdamW 2.003. The demo starts where the dense baseline did best.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from laconic.compressors import Cast, ScaledSign, TopK
from laconic.feedback import DCGD, EF14, EF21, Feedback

DENSITY = 0.01


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
        clip: norm to which every node shortens its gradient.
        colour: in the figure.
    """

    name: str
    label: str
    sends: Literal["all", "gradient", "update"]
    feedback: Feedback | None
    lr: float
    beta1: float
    clip: float | None
    colour: str


_BF16 = TopK(DENSITY) >> Cast(torch.bfloat16)
_SIGNS = TopK(DENSITY) >> ScaledSign()

METHODS = (
    Method("bf16", "bf16 all-reduce", "all", None, 6e-3, 0.7, 0.5, "#7f7f7f"),
    Method("dcgd", "Top-1 %, no feedback", "gradient", DCGD(_BF16), 4e-3, 0.0, 0.5, "#D55E00"),
    Method("ef14", "EF14 on gradients", "gradient", EF14(_BF16), 4e-3, 0.0, 0.5, "#E69F00"),
    Method("ef21", "EF21 on gradients", "gradient", EF21(_BF16), 1e-3, 0.0, 0.5, "#0072B2"),
    Method("compressed", "CompressedAdamW bf16", "update", EF14(_BF16), 1e-2, 0.0, 0.5, "#009E73"),
    Method("compressed-1bit", "CompressedAdamW 1-bit", "update", EF14(_SIGNS), 1e-2, 0.0, 0.5, "#CC79A7"),
)
