"""Predictions of the planner's probe beside measured steps of ``laconic bench step``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from laconic.network import Link, Ranks, isolation
from laconic.plan._predict import Compute, LinkCosts, Method, Prediction, choose, predict

MEASURED = {
    "fp32": "fp32",
    "bf16": "bf16-adamw",
    "EF14, 1 %, 1 bit": "recommended-hook",
    "EF21, 1 %, bf16": "ef21-bf16",
    "EF21, 0.1 %, 4 bits": "ef21-4bit",
    "CompressedAdamW, 1 %, 1 bit": "recommended",
    "local steps, 4 x 3 %, 2 bits": "local-4",
    "local steps, 16 x 3 %, 2 bits": "local-16",
}
"""The benchmark's row of each method of the planner."""


def validate(rows: Sequence[Mapping[str, Any]], note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Probe each cell (model, link, ranks) that was measured, as ``laconic plan`` does.

    Args:
        rows: of ``laconic bench step``.
        note: called with what is measured now.

    Returns:
        For each cell: what :func:`compare` returns, and "probe", the constants of the prediction.

    Raises:
        RuntimeError: where a rank failed.
    """
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["rate"], row["delay_ms"], row["nodes"]), []).append(row)
    found = isolation()
    compared = []
    for (model, rate, delay_ms, nodes), measured in cells.items():
        link = Link(rate, delay_ms)
        probe: dict[str, Any] = {}

        def take(report: dict[str, Any], label: str = link.label, probe: dict[str, Any] = probe) -> None:
            if "note" in report:
                note(f"{label}: {report['note']}")
            else:
                probe.update(report)

        Ranks("laconic.plan", {"model": model}, nodes).run(link, found, take)
        costs, compute = LinkCosts(**probe["link"]), Compute(**probe["compute"])
        predictions = [predict(Method(**each), costs, compute, nodes) for each in probe["methods"]]
        cell = {"model": model, "link": link.label, "nodes": nodes}
        compared.append(cell | compare(predictions, measured) | {"probe": probe})
    return compared


def compare(predictions: Sequence[Prediction], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Predicted and measured steps of one cell, and what the planner's choice costs.

    Returns:
        "methods": by name, predicted and measured milliseconds and their ratio; "chosen" and "best": the
        planner's choice and the fastest measured method, of those whose loss allows them to be advised; and
        "cost": the chosen method's measured step over the best one's.
    """
    steps = {row["method"]: row["step_ms"] for row in measured}
    both = {p.method: (1e3 * p.step, steps[MEASURED[p.method]]) for p in predictions if _has(p, steps)}
    chosen = choose([p for p in predictions if p.method in both])
    admitted = [p.method for p in predictions if p.method in both and p.keeps_loss]
    best = min(admitted, key=lambda name: both[name][1])
    return {
        "methods": {
            name: {"predicted_ms": predicted, "measured_ms": step, "ratio": predicted / step}
            for name, (predicted, step) in both.items()
        },
        "chosen": chosen.method,
        "best": best,
        "cost": both[chosen.method][1] / both[best][1],
    }


def _has(prediction: Prediction, steps: Mapping[str, float]) -> bool:
    return MEASURED.get(prediction.method) in steps
