"""Time to a loss, measured from start to end on a shaped network, beside the product of step and steps.

    python benchmarks/accuracy/real.py --out docs/results/time-to-loss-real.json

Four ranks train the study's transformer for its seed 0 until they have the loss that dense AdamW has after
70 % of its steps; the product is that of a step, measured just before, and of the study's steps.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from report import is_usual, spec_of
from study import done

from laconic.bench.machine import describe_machine
from laconic.bench.time_to_loss import SHARE, steps_to, value_at
from laconic.network import Link, Ranks, isolation

CELLS = (
    (Link(100e6), ("dense", "adamw")),
    (Link(100e6, 20.0), ("adamw",)),
    (Link(30e6), ("adamw",)),
)
"""Links, and the methods that train on each: dense ones take minutes."""
LENGTH = 1000


def best_runs(length: int) -> dict[str, dict[str, Any]]:
    """Seed 0 of dense AdamW and of CompressedAdamW as recommended, at the best learning rate of each."""
    usual = [
        run
        for run in done().values()
        if "validation" in run and run["steps"] == length and run["seed"] == 0 and is_usual(spec_of(run))
    ]
    return {
        method: min((run for run in usual if run["method"] == method), key=lambda run: run["validation"])
        for method in ("dense", "adamw")
    }


def measure(
    link: Link, methods: tuple[str, ...], best: dict[str, dict[str, Any]], turns: int = 5
) -> dict[str, Any]:
    """A cell's steps, and the runs from start to end."""
    curves = {method: [(float(s), float(v)) for s, v in run["curve"]] for method, run in best.items()}
    dense_steps = SHARE * best["dense"]["steps"]
    goal = value_at(curves["dense"], dense_steps)
    steps = {"dense": dense_steps, "adamw": steps_to(curves["adamw"], goal)}
    found = isolation()
    settings = {
        "specs": {method: asdict(spec_of(run)) for method, run in best.items()},
        "methods": methods,
        "steps": steps,
        "goal": goal,
        "turns": turns,
        "shaped": bool(found.prefix),
    }
    cell: dict[str, Any] = {"link": link.label, "goal": goal, "study_steps": steps}

    def take(report: dict[str, Any]) -> None:
        if "note" in report:
            sys.stderr.write(f"\r{link.label}: {report['note']:<50}")
            sys.stderr.flush()
        else:
            cell.update(report)

    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    Ranks("real_rank", settings, 4).run(link, found, take)
    sys.stderr.write("\n")
    return cell


def main() -> None:
    """Measure all cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    best, cells = best_runs(LENGTH), []
    for link, methods in CELLS:
        cells.append(measure(link, methods, best))
        record = {
            "machine": describe_machine(),
            "command": f"python benchmarks/accuracy/real.py --out docs/results/{options.out.name}",
            "network": "shaped" if isolation().prefix else "loopback, unshaped",
            "cells": cells,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
