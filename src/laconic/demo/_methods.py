"""The methods of the demo."""

from dataclasses import dataclass
from typing import Literal

import torch

from laconic.compressors import Cast, ScaledSign, TopK
from laconic.feedback import DCGD, EF14, EF21, Feedback

DENSITY = 0.01


@dataclass(frozen=True)
class Method:
    """What is sent, and what is done with it.

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
    Method("ef21", "EF21 on gradients", "gradient", EF21(_BF16), 2e-3, 0.0, 0.5, "#0072B2"),
    Method("compressed", "CompressedAdamW bf16", "update", EF14(_BF16), 8e-3, 0.0, 0.5, "#009E73"),
    Method("compressed-1bit", "CompressedAdamW 1-bit", "update", EF14(_SIGNS), 8e-3, 0.0, 0.5, "#CC79A7"),
)
