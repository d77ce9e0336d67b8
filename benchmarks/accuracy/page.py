"""The study's table in docs/how-to-choose.md."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import Row, Run, rows_of
from stages import DENSE, INNER, LONG_LR, LR, Spec

PAGE = Path(__file__).parents[2] / "docs" / "how-to-choose.md"
BLOCK = re.compile(r"(<!-- study -->\n\n).*?(\n\n<!-- /study -->)", re.DOTALL)
SHORT: Mapping[str, Any] = {"steps": 1000}
LINES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("dense AdamW", {"lr": LONG_LR, **DENSE}),
    ("`CompressedAdamW`", {"method": "adamw", "lr": 2 * LONG_LR}),
    ("the same, beta_2 0.95", {"method": "adamw", "lr": 2 * LONG_LR, "beta2": 0.95}),
    ("the same, 0.25 %", {"method": "adamw", "lr": 2 * LONG_LR, "density": 0.0025}),
    (
        "the same, 1 % for the first fifth, then 0.25 %",
        {"method": "adamw", "lr": 2 * LONG_LR, "density": 0.0025, "first": 0.2},
    ),
    ("the same, 0.1 %", {"method": "adamw", "lr": 2 * LONG_LR, "density": 0.001}),
    (
        "the same, 1 % for the first fifth, then 0.1 %",
        {"method": "adamw", "lr": 2 * LONG_LR, "density": 0.001, "first": 0.2},
    ),
    (
        "`CompressedAdamW`, other files on each node",
        {"method": "adamw", "lr": 2 * LONG_LR, "split": "directories"},
    ),
    ("`LocalSteps`, H = 4, 3 % in 2 bits", {"method": "local", "lr": 2 * LONG_LR, "every": 4, **INNER}),
    ("the same, H = 16", {"method": "local", "lr": 2 * LONG_LR, "every": 16, **INNER}),
    ("EF14 on gradients, SGD with momentum", {"method": "ef14-sgd", "lr": 0.1}),
    ("EF21-SGDM, SGD", {"method": "ef21-sgdm", "lr": 1.0}),
    ("dense AdamW", {"lr": LR, **DENSE, **SHORT}),
    ("`CompressedAdamW`", {"method": "adamw", "lr": 2 * LR, **SHORT}),
    ("the same, Top-k by parameter", {"method": "adamw", "lr": 2 * LR, "selection": "segments", **SHORT}),
    ("the same, beta_2 0.95", {"method": "adamw", "lr": 2 * LR, "beta2": 0.95, **SHORT}),
    ("the same, beta_2 0.999", {"method": "adamw", "lr": 2 * LR, "beta2": 0.999, **SHORT}),
    (
        "the same, weight decay 0.01, dense AdamW's too",
        {"method": "adamw", "lr": 2 * LR, "weight_decay": 0.01, **SHORT},
    ),
    (
        "the same, weight decay 0.1, dense AdamW's too",
        {"method": "adamw", "lr": 2 * LR, "weight_decay": 0.1, **SHORT},
    ),
    ("`LocalSteps`, H = 4, 3 % in 2 bits", {"method": "local", "lr": 2 * LR, "every": 4, **INNER, **SHORT}),
    ("the same, H = 16", {"method": "local", "lr": 2 * LR, "every": 16, **INNER, **SHORT}),
    ("EF14 on gradients, SGD with momentum", {"method": "ef14-sgd", "lr": 0.1, **SHORT}),
    ("EF21-SGDM, SGD", {"method": "ef21-sgdm", "lr": 1.0, **SHORT}),
)
"""Labels and settings, at the best learning rates of the grids."""


def render(page: str, runs: Sequence[Run]) -> str:
    """The page with the table of these runs."""
    return BLOCK.sub(lambda found: found.group(1) + table(runs) + found.group(2), page)


def table(runs: Sequence[Run]) -> str:
    """A line for each recipe that has runs."""
    by_key = {row.spec.key: row for row in rows_of(runs)}
    lines = [
        "| | steps | learning rate | loss | gap to dense AdamW | of bf16's bytes |",
        "|---|" + "---|" * 5,
    ]
    for label, settings in LINES:
        row = by_key.get(Spec(0, **settings).key)
        if row is not None:
            dense = row.spec.method == "dense"
            gap, sent = ("", "") if dense else (_gap(row), f"{100 * row.bits / 16:.2f} %")
            lines.append(
                f"| {label} | {row.spec.steps:,} | {row.spec.lr:g} | {row.loss:.4f} | {gap} | {sent} |"
            )
    return "\n".join(lines)


def _gap(row: Row) -> str:
    """The mean with its interval; of two seeds both."""
    if row.seeds > 2 and row.gap is not None and row.half is not None:
        low, high = row.gap - row.half, row.gap + row.half
        return f"{row.gap:+.2f} % ({low:+.2f} to {high:+.2f} %, {row.seeds} seeds)"
    return ", ".join(f"{gap:+.2f}" for gap in row.gaps) + " %"
