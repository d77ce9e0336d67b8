"""The table of step times in README.md from the JSON files of this folder: python docs/results/readme.py."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent
README = RESULTS.parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- results:step -->\n).*?(<!-- /results:step -->)", re.DOTALL)
RATES = (100e6, 1e9)
MODELS = ("mlp-10m", "transformer-0.8m", "transformer-10m")
METHODS = {
    "bf16": ("DDP, bf16 all-reduce, SGD", "bf16"),
    "powersgd-1": ("DDP, PowerSGD, rank 1, SGD", "bf16"),
    "topk-naive": ("DDP, `torch.topk` 1 %, index-value pairs, SGD", "bf16"),
    "recommended-hook": ("DDP, hook, 1 % in one bit, SGD", "bf16"),
    "bf16-adamw": ("DDP, bf16 all-reduce, AdamW", "bf16-adamw"),
    "recommended": ("**CompressedAdamW, 1 % in one bit**", "bf16-adamw"),
    "local-4": ("LocalSteps of AdamW, an exchange every 4 steps", "bf16-adamw"),
}
"""Titles, and the dense method with the same optimiser."""


def render(page: str, folder: Path = RESULTS) -> str:
    """The page with its table; without results, with none."""
    return BLOCK.sub(lambda found: found.group(1) + table(rows_of(folder)) + found.group(2), page)


def rows_of(folder: Path) -> list[dict]:
    """The rows of the step benchmark for :data:`MODELS`, on the links of :data:`RATES` without delay."""
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("step-*.json"))]
    rows = [row for record in records for row in record["rows"]]
    return [row for row in rows if row["model"] in MODELS and row["rate"] in RATES and not row["delay_ms"]]


def table(rows: Sequence[dict]) -> str:
    """Milliseconds of a step, and how many times faster than bf16's; a column for each model and link."""
    steps = {(row["model"], row["link"], row["method"]): row["step_ms"] for row in rows}
    columns = sorted({(row["model"], row["rate"], row["link"]) for row in rows})
    if not columns:
        return ""
    heads = " | ".join(f"{model}, {link}" for model, _, link in columns)
    lines = [f"| milliseconds a step | {heads} |", "|---|" + "---:|" * len(columns)]
    for method, (title, dense) in METHODS.items():
        found = [
            (steps.get((*at, method)), steps.get((*at, dense)))
            for at in ((model, link) for model, _, link in columns)
        ]
        if any(step for step, _ in found):
            lines.append(f"| {title} | {' | '.join(cell(*pair) for pair in found)} |")
    ranks = " or ".join(sorted({str(row["nodes"]) for row in rows}))
    note = f"{ranks} ranks in network namespaces of one machine with two cores; in brackets, against bf16."
    return "\n".join(lines) + f"\n\n{note}\n"


def cell(step: float | None, dense: float | None) -> str:
    """A step, and by how much it is faster than the dense one."""
    if step is None:
        return ""
    return f"{step:,.0f}" if not dense or dense == step else f"{step:,.0f} ({dense / step:.2g}×)"


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
