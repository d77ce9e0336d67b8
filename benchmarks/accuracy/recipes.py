"""Recipes of the accuracy study that the documentation names, at the best learning rates of the grids."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages import DENSE, INNER, LONG_LR, LR, Spec

_LONG: Mapping[str, Any] = {"method": "adamw", "lr": 2 * LONG_LR}
_SHORT: Mapping[str, Any] = {"method": "adamw", "lr": 2 * LR, "steps": 1000}
_LOCAL: Mapping[str, Any] = {"method": "local", **INNER}


def _of(settings: Mapping[str, Any], **others: Any) -> Spec:
    return Spec(0, **{**settings, **others})


LINES: Sequence[tuple[str, Spec]] = (
    ("dense AdamW", _of(DENSE, lr=LONG_LR)),
    ("`CompressedAdamW`", _of(_LONG)),
    ("the same, beta_2 0.95", _of(_LONG, beta2=0.95)),
    ("the same, 0.25 %", _of(_LONG, density=0.0025)),
    ("the same, 1 % for the first fifth, then 0.25 %", _of(_LONG, density=0.0025, first=0.2)),
    ("the same, 0.1 %", _of(_LONG, density=0.001)),
    ("the same, 1 % for the first fifth, then 0.1 %", _of(_LONG, density=0.001, first=0.2)),
    ("the same, other files on each node", _of(_LONG, split="directories")),
    ("`LocalSteps`, H = 4, 3 % in 2 bits", _of(_LOCAL, lr=2 * LONG_LR, every=4)),
    ("the same, H = 16", _of(_LOCAL, lr=2 * LONG_LR, every=16)),
    ("dense SGD with momentum 0.9", Spec(0, "sgd", 1.0)),
    ("EF14 on gradients, SGD without momentum", Spec(0, "ef14-sgd-0", 10.0)),
    ("the same, with momentum 0.9", Spec(0, "ef14-sgd", 0.1)),
    ("EF21-SGDM, SGD", Spec(0, "ef21-sgdm", 1.0)),
    ("dense AdamW", _of(DENSE, lr=LR, steps=1000)),
    ("`CompressedAdamW`", _of(_SHORT)),
    ("the same, Top-k by parameter", _of(_SHORT, selection="segments")),
    ("the same, beta_2 0.95", _of(_SHORT, beta2=0.95)),
    ("the same, beta_2 0.999", _of(_SHORT, beta2=0.999)),
    ("the same, weight decay 0.01, dense AdamW's too", _of(_SHORT, weight_decay=0.01)),
    ("the same, weight decay 0.1, dense AdamW's too", _of(_SHORT, weight_decay=0.1)),
    ("`LocalSteps`, H = 4, 3 % in 2 bits", _of(_LOCAL, lr=2 * LR, every=4, steps=1000)),
    ("the same, H = 16", _of(_LOCAL, lr=2 * LR, every=16, steps=1000)),
    ("dense SGD with momentum 0.9", Spec(0, "sgd", 1.0, steps=1000)),
    ("EF14 on gradients, SGD without momentum", Spec(0, "ef14-sgd-0", 10.0, steps=1000)),
    ("the same, with momentum 0.9", Spec(0, "ef14-sgd", 0.1, steps=1000)),
    ("EF21-SGDM, SGD", Spec(0, "ef21-sgdm", 1.0, steps=1000)),
)
"""Labels and settings; "the same" is the method above."""
