"""Predictions of the planner's probe beside measured steps of ``laconic bench step``."""

import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from laconic.bench.step_models import WORKLOADS
from laconic.network import Link, Ranks, isolation
from laconic.plan._predict import DENSE, Compute, LinkCosts, Method, Prediction, choose, predict

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
_NUMBERS = ("delay_ms", "nodes", "step_ms", "compute_ms")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file of ``laconic bench step``.

    Raises:
        ValueError: for any other file.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); {_REMEDY}") from error
    rows = record.get("rows") if isinstance(record, dict) else None
    if not isinstance(rows, list) or not rows or not all(map(_is_row, rows)):
        raise ValueError(f"{file} is not the JSON of laconic bench step; {_REMEDY}")
    return rows


_REMEDY = "laconic bench step --json FILE writes one"


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("method"), str)
        and isinstance(row.get("model"), str)
        and row["model"] in WORKLOADS
        and all(isinstance(row.get(name), Real) for name in _NUMBERS)
        and isinstance(row.get("rate", ""), Real | None)
    )


def _cells(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """The rows by model, rate, delay and ranks.

    Raises:
        ValueError: where a cell has nothing to compare.
    """
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["rate"], row["delay_ms"], row["nodes"]), []).append(row)
    dense = {MEASURED[name] for name in DENSE}
    for (model, rate, delay_ms, nodes), measured in cells.items():
        known = {row["method"] for row in measured} & set(MEASURED.values())
        if known <= dense or not known & dense:
            raise ValueError(
                f"{model}, {nodes} ranks, {Link(rate, delay_ms).label}: the planner's choice needs a dense "
                f"method that was measured ({' or '.join(sorted(dense))}) and one that compresses "
                f"({', '.join(name for name in MEASURED.values() if name not in dense)}); "
                "laconic bench step --methods bf16-adamw,recommended measures them"
            )
    return cells


def validate(rows: Sequence[Mapping[str, Any]], note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Probe each cell (model, link, ranks) that was measured, as ``laconic plan`` does.

    Args:
        rows: of ``laconic bench step``.
        note: called with what is measured now.

    Returns:
        For each cell: what :func:`compare` returns, and "probe", the constants of the prediction.

    Raises:
        ValueError: where a cell lacks a dense method or one that compresses, before any probe.
        RuntimeError: where a rank failed.
    """
    cells = _cells(rows)
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
