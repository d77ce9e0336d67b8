"""Figures of the accuracy study in the docs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes import LINES
from report import LABELS, MINIMISERS, Row, Run, best, is_rate, is_usual, rows_of, spec_of, tuning_order
from stages import LR, SHARE

GAP = "percent above dense AdamW of the same seed"


def draw(runs: Sequence[Run], folder: Path) -> None:
    """``study-*.png`` of everything that has runs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = rows_of(runs)
    for kind, size in ((methods, (10, 4.8)), (recipes, (8, 6)), (nodes, (7, 4)), (batches, (7, 4))):
        figure = plt.figure(figsize=size, layout="constrained")
        if kind(figure, runs, rows):
            figure.savefig(folder / f"study-{kind.__name__}.png", dpi=120)
        plt.close(figure)


def methods(figure: Any, runs: Sequence[Run], rows: Sequence[Row]) -> bool:
    """Curves of the validation loss, means over seeds, and the gaps of every seed.

    Each method is drawn at its best learning rate, at the length for which most methods have runs.
    """
    chosen: dict[tuple[str, int], Row] = {}
    for row in sorted(filter(lambda row: is_usual(row.spec), rows), key=tuning_order):
        chosen.setdefault((row.spec.method, row.spec.steps), row)
    if not chosen:
        return False
    usual = [chosen[key] for key in sorted(chosen, key=lambda key: list(LABELS).index(key[0]))]
    lengths = [row.spec.steps for row in usual]
    length = max(lengths, key=lambda steps: (lengths.count(steps), steps))
    left, right = figure.subplots(1, 2)
    names = []
    for number, row in enumerate(row for row in usual if row.spec.steps == length):
        own = [run for run in runs if replace(spec_of(run), stage=row.spec.stage, seed=0) == row.spec]
        curves = [run["curve"] for run in own if "curve" in run]
        losses = [sum(loss for _, loss in points) / len(points) for points in zip(*curves, strict=True)]
        seeds = "1 seed" if len(own) == 1 else f"{len(own)} seeds"
        label = f"{LABELS[row.spec.method]} ({seeds})"
        left.plot([step for step, _ in curves[0]], losses, marker=".", color=f"C{number}", label=label)
        if row.spec.method != "dense":
            right.plot(row.gaps, [len(names)] * len(row.gaps), "o", color=f"C{number}", alpha=0.7)
            names.append(LABELS[row.spec.method])
    left.set(xlabel="step", ylabel="validation loss, nats a byte", title="Loss, mean over seeds")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    right.set_yticks(range(len(names)), names)
    right.set_ylim(-0.5, max(len(names), 1) - 0.5)
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel=GAP, title=f"Gap after {length:,} steps, each seed")
    return True


def recipes(figure: Any, _: Sequence[Run], rows: Sequence[Row]) -> bool:
    """The gaps of every seed of the recipes that come near."""
    by_key = {row.spec.key: row for row in rows}
    lines, name = [], ""
    for label, spec in LINES:
        name = name if label.startswith("the same") else label.split(",")[0]
        row = by_key.get(spec.key)
        if row and row.gaps and spec.method in ("adamw", "local"):
            said = label.replace("the same", name).replace("`", "")
            lines.append((f"{said}\n{spec.steps:,} steps", row))
    if not lines:
        return False
    axes = figure.subplots()
    for place, (_, row) in enumerate(lines):
        axes.plot(row.gaps, [place] * len(row.gaps), "o", color=f"C{int(row.spec.steps < 3000)}", alpha=0.7)
    axes.set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=GAP, title="Recipes, a point for each seed")
    axes.grid(axis="y", alpha=0.3)
    return True


def nodes(figure: Any, _: Sequence[Run], rows: Sequence[Row]) -> bool:
    """Gaps of CompressedAdamW by learning rate and number of nodes."""
    points: dict[int, list[tuple[float, Row]]] = defaultdict(list)
    for row in rows:
        if is_rate(row.spec) and row.spec.method == "adamw" and row.gaps:
            points[row.spec.nodes].append((row.spec.lr / LR / row.spec.nodes**0.5, row))
    if not points:
        return False
    axes = figure.subplots()
    for number, count in enumerate(sorted(points)):
        own = sorted(points[count], key=lambda point: point[0])
        means = [sum(row.gaps) / len(row.gaps) for _, row in own]
        axes.plot([factor for factor, _ in own], means, color=f"C{number}", label=f"{count} nodes")
        for factor, row in own:
            axes.plot([factor] * len(row.gaps), row.gaps, "o", color=f"C{number}", alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.5, 1, 2], ["1/2", "1", "2"])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="learning rate / (root of n × that of dense AdamW)", ylabel=GAP)
    axes.set_title("CompressedAdamW, 1,000 steps: lines are means, points seeds")
    axes.legend()
    return True


def batches(figure: Any, runs: Sequence[Run], rows: Sequence[Row]) -> bool:
    """Training losses of EF14 and EF21 without momentum by the size of the batch."""
    axes = figure.subplots()
    found = False
    for number, method in enumerate(MINIMISERS):
        own = [row for row in best(rows) if row.spec.method == method]
        own.sort(key=lambda row: row.spec.batch or SHARE)
        sizes = [row.spec.batch or SHARE for row in own]
        axes.plot(sizes, [row.training for row in own], color=f"C{number}", label=LABELS[method])
        for size, row in zip(sizes, own, strict=True):
            losses = [run["training"] for run in runs if replace(spec_of(run), seed=0) == row.spec]
            axes.plot([size] * len(losses), losses, "o", color=f"C{number}", alpha=0.6)
        found = found or bool(own)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([4, 16, 64, 256, SHARE], ["4", "16", "64", "256", f"all {SHARE}"])
    axes.set(xlabel="images a node and step", ylabel="loss on all training images")
    axes.set_title("Top-k 1 %, digits, 1,000 steps: lines are means, points seeds")
    axes.legend()
    return found
