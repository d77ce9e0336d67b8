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
        compared.append(cell | compare(predictions, compute, measured) | {"probe": probe})
    return compared


def compare(
    predictions: Sequence[Prediction], compute: Compute, measured: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Predicted and measured steps of one cell, and what the planner's choice costs.

    The speed of a shared machine differs between the minutes of probe and benchmark, so that the prediction
    is also made with the compute alone that the benchmark has measured in the turns of each method.

    Args:
        predictions: from the probe.
        compute: that they rest on.
        measured: rows of ``laconic bench step``.

    Returns:
        "methods": by name, milliseconds "from_probe", "predicted" with the benchmark's compute alone and
        "measured", and the "ratio" of the last two; "chosen" and "best": the planner's choice and the fastest
        measured method, of those whose loss allows them to be advised; and "cost": the chosen method's
        measured step over the best one's.
    """
    by_method = {row["method"]: row for row in measured}
    rows = {
        p.method: by_method[MEASURED[p.method]] for p in predictions if MEASURED.get(p.method) in by_method
    }
    steps = {name: row["step_ms"] for name, row in rows.items()}
    methods = {}
    for each in [p for p in predictions if p.method in rows]:
        own = 1e3 * (each.step - compute.step) + rows[each.method]["compute_ms"]
        step = steps[each.method]
        methods[each.method] = {
            "from_probe": 1e3 * each.step,
            "predicted": own,
            "measured": step,
            "ratio": own / step,
        }
    chosen = choose([p for p in predictions if p.method in steps])
    best = min((p.method for p in predictions if p.method in steps and p.keeps_loss), key=steps.__getitem__)
    return {
        "methods": methods,
        "chosen": chosen.method,
        "best": best,
        "cost": steps[chosen.method] / steps[best],
    }
