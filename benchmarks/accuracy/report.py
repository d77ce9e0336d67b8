"""Report of the accuracy study: a line for each run, gaps paired by seed with intervals, a figure."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from scipy import stats
from stages import Spec

Run = Mapping[str, Any]
COLUMNS = [*(f.name for f in fields(Spec)), "validation", "training", "gap", "bits", "seconds", "failed"]
LABELS = {
    "dense": "dense AdamW",
    "adamw": "CompressedAdamW",
    "ef14-sgd": "EF14, SGD with momentum",
    "ef21-sgdm": "EF21-SGDM, SGD",
    "local": "LocalSteps of AdamW",
    "ef14": "EF14, SGD",
    "ef21": "EF21, SGD",
}
RATES = 2
"""The stage that compares learning rates."""
METHOD_ONLY = ("density", "first", "selection", "beta1", "beta2", "lr", "every")
"""Settings by which a run differs from the dense run that it is compared with."""


def spec_of(run: Run) -> Spec:
    """The settings of a finished run."""
    return Spec(**{f.name: run[f.name] for f in fields(Spec) if f.name in run})


def gaps(runs: Sequence[Run]) -> dict[str, float]:
    """Percent by which the loss of each run exceeds that of the best dense one of its seed and data."""
    dense: dict[str, float] = {}
    for run in runs:
        if run["method"] == "dense" and "validation" in run:
            key = _pairing(spec_of(run))
            dense[key] = min(dense.get(key, float("inf")), run["validation"])
    return {
        spec.key: 100 * (run["validation"] / dense[_pairing(spec)] - 1)
        for run in runs
        if "validation" in run and _pairing(spec := spec_of(run)) in dense
    }


def _pairing(spec: Spec) -> str:
    defaults = Spec(0, "", 0.0)
    return replace(spec, stage=0, method="", **{name: getattr(defaults, name) for name in METHOD_ONLY}).key


@dataclass(frozen=True)
class Row:
    """One recipe over its seeds.

    Args:
        spec: the recipe; its seed is 0.
        seeds: how many runs.
        loss: mean validation loss.
        training: mean training loss: of the last 100 steps, or of all images.
        gaps: percent above dense of the same seed, in the order of seeds.
        gap: their mean; None without such runs.
        half: half the width of its 95 % interval (Student); None for one seed.
        bits: a parameter and step.
    """

    spec: Spec
    seeds: int
    loss: float
    training: float
    gaps: tuple[float, ...]
    gap: float | None
    half: float | None
    bits: float


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row for each recipe, in the order of the runs."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if "validation" in run:
            found[replace(spec_of(run), stage=0, seed=0).key].append(run)
    gap_of, rows = gaps(runs), []
    for group in found.values():
        specs = sorted(map(spec_of, group), key=lambda spec: spec.seed)
        mine = tuple(gap_of[spec.key] for spec in specs if spec.key in gap_of)
        count = len(mine)
        mean = sum(mine) / count if count else None
        half = None
        if count > 1 and mean is not None:
            deviation = (sum((g - mean) ** 2 for g in mine) / (count - 1)) ** 0.5
            half = float(stats.t.ppf(0.975, count - 1)) * deviation / count**0.5
        loss, training = (sum(run[name] for run in group) / len(group) for name in ("validation", "training"))
        spec = replace(spec_of(group[0]), seed=0)
        rows.append(Row(spec, len(group), loss, training, mine, mean, half, group[0]["bits"]))
    return rows


def best(rows: Sequence[Row]) -> list[Row]:
    """Of rows that differ in the learning rate alone, that of the least loss; all of the stage of rates.

    The loss is that of training where methods without momentum are compared as minimisers.
    """
    chosen: dict[str, Row] = {}
    for row in rows:
        rate = row.spec.lr if row.spec.stage == RATES else 0.0
        key = replace(row.spec, stage=0, lr=rate).key
        if key not in chosen or _loss(row) < _loss(chosen[key]):
            chosen[key] = row
    return list(chosen.values())


def _loss(row: Row) -> float:
    return row.training if row.spec.method in ("ef14", "ef21") else row.loss


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """A line for each run."""
    gap_of = gaps(runs)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for run in runs:
            spec = spec_of(run)
            numbers = {k: f"{run[k]:.6g}" for k in ("validation", "training", "bits", "seconds") if k in run}
            gap = {"gap": f"{gap_of[spec.key]:.3f}"} if spec.key in gap_of else {}
            failed = {"failed": run["failed"]} if "failed" in run else {}
            writer.writerow(asdict(spec) | numbers | gap | failed)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    heads = ("method", "lr", "steps", "n", "settings", "seeds", "loss", "training", "gap to dense", "bits")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        spec = row.spec
        gap = "" if row.gap is None or spec.method == "dense" else f"{row.gap:+.2f} %"
        if gap and row.half is not None:
            gap += f" ({row.gap - row.half:+.2f} to {row.gap + row.half:+.2f})"  # type: ignore[operator]
        lines.append(
            f"| {LABELS[spec.method]} | {spec.lr:g} | {spec.steps:,} | {spec.nodes} | {_settings(spec)} "
            f"| {row.seeds} | {row.loss:.4f} | {row.training:.4g} | {gap} | {row.bits:.3g} |"
        )
    return "\n".join(lines) + "\n"


def _settings(spec: Spec) -> str:
    usual, said = Spec(0, spec.method, 0.0), []
    if spec.method != "dense" and (spec.density, spec.first) != (usual.density, usual.first):
        said.append(f"{100 * spec.density:g} %" + (f" after 1 % for {spec.first:g}" if spec.first else ""))
    if spec.task != usual.task:
        said.append(spec.task)
    if spec.task != usual.task or (spec.batch != usual.batch and spec.nodes == usual.nodes):
        said.append(f"batch {spec.batch}" if spec.batch else "full batch")
    if spec.every > 1:
        said.append(f"exchange every {spec.every} steps, 2 bits")
    if spec.selection != usual.selection:
        said.append("Top-k by parameter")
    if spec.method == "local":
        said.append(f"inner betas {spec.beta1:g} and {spec.beta2:g}")
    elif spec.beta2 != usual.beta2:
        said.append(f"beta_2 {spec.beta2:g}")
    if spec.weight_decay:
        said.append(f"decay {spec.weight_decay:g}")
    if spec.split != usual.split:
        said.append("other data on each node")
    return ", ".join(said)


def draw(runs: Sequence[Run], path: Path) -> None:
    """Curves of the validation loss, means over seeds, and the gaps of every seed.

    Each method is drawn at its best learning rate, at the length for which most methods have runs.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in best(rows_of(runs)) if is_usual(row.spec)]
    if not rows:
        return
    lengths = [row.spec.steps for row in rows]
    length = max(lengths, key=lambda steps: (lengths.count(steps), steps))
    gap_of = gaps(runs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = []
    for number, row in enumerate(row for row in rows if row.spec.steps == length):
        own = [run for run in runs if replace(spec_of(run), stage=row.spec.stage, seed=0) == row.spec]
        curves = [run["curve"] for run in own if "curve" in run]
        losses = [sum(loss for _, loss in points) / len(points) for points in zip(*curves, strict=True)]
        seeds = "1 seed" if len(own) == 1 else f"{len(own)} seeds"
        label = f"{LABELS[row.spec.method]} ({seeds})"
        left.plot([step for step, _ in curves[0]], losses, marker=".", color=f"C{number}", label=label)
        if row.spec.method != "dense":
            mine = [gap_of[spec_of(run).key] for run in own if spec_of(run).key in gap_of]
            right.plot(mine, [len(names)] * len(mine), "o", color=f"C{number}", alpha=0.7)
            names.append(LABELS[row.spec.method])
    left.set(xlabel="step", ylabel="validation loss, nats a byte", title="Loss, mean over seeds")
    left.legend()
    right.set_yticks(range(len(names)), names)
    right.set_ylim(-0.5, max(len(names), 1) - 0.5)
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel="percent above dense of the same seed", title=f"Gap after {length:,} steps, each seed")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def is_usual(spec: Spec) -> bool:
    """Whether a run differs from its method as recommended in learning rate, seed and length alone."""
    usual = Spec(0, "", 0.0)
    settings = ("task", "nodes", "density", "first", "selection", "weight_decay", "split", "every")
    dense = spec.method == "dense" or spec.beta2 == usual.beta2
    return dense and all(getattr(spec, name) == getattr(usual, name) for name in settings)
