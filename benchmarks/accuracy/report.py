"""Report of the accuracy study: a line for each run, gaps paired by seed with intervals."""

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
    "sgd": "dense SGD with momentum",
    "adamw": "CompressedAdamW",
    "ef14-sgd": "EF14, SGD with momentum",
    "ef14-sgd-0": "EF14, SGD without momentum",
    "ef21-sgdm": "EF21-SGDM, SGD",
    "local": "LocalSteps of AdamW",
    "ef14": "EF14, SGD",
    "ef21": "EF21, SGD",
}
RATES = 2
"""The stage that compares learning rates."""
MINIMISERS = ("ef14", "ef21")
"""Methods without momentum, which are compared by the loss on all training images."""
METHOD_ONLY = ("density", "first", "selection", "beta1", "beta2", "lr", "every")
"""Settings by which a run differs from the dense run that it is compared with."""


def spec_of(run: Run) -> Spec:
    """The settings of a finished run."""
    return Spec(**{f.name: run[f.name] for f in fields(Spec) if f.name in run})


def gaps(runs: Sequence[Run]) -> dict[str, float]:
    """Percent by which the loss of each run exceeds that of dense AdamW, tuned, of its seed and data."""
    groups: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for run in runs:
        if run["method"] == "dense" and "validation" in run:
            spec = replace(spec_of(run), seed=0)
            groups[_pairing(spec), spec.key][run["seed"]] = run["validation"]
    dense: dict[str, dict[int, float]] = {}
    for (pairing, _), losses in groups.items():
        if pairing not in dense or _tuning(losses) < _tuning(dense[pairing]):
            dense[pairing] = losses
    found = {}
    for run in runs:
        spec = spec_of(run)
        other = dense.get(_pairing(replace(spec, seed=0)), {}).get(spec.seed)
        if "validation" in run and other is not None:
            found[spec.key] = 100 * (run["validation"] / other - 1)
    return found


def _tuning(losses: Mapping[int, float]) -> tuple[int, float]:
    """The order of learning rates: that with the most seeds, then that of the least mean loss."""
    return -len(losses), sum(losses.values()) / len(losses)


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

    A row of fewer seeds than another is no candidate.
    """
    chosen: dict[str, Row] = {}
    for row in rows:
        rate = row.spec.lr if row.spec.stage == RATES else 0.0
        key = replace(row.spec, stage=0, lr=rate).key
        if key not in chosen or tuning_order(row) < tuning_order(chosen[key]):
            chosen[key] = row
    return list(chosen.values())


def tuning_order(row: Row) -> tuple[int, float]:
    """Rows in the order in which they are preferred: those of the most seeds, then by their loss."""
    return -row.seeds, row.training if row.spec.method in MINIMISERS else row.loss


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


def is_usual(spec: Spec) -> bool:
    """Whether a run differs from its method as recommended in learning rate, seed and length alone."""
    usual = Spec(0, "", 0.0)
    settings = ("task", "nodes", "density", "first", "selection", "weight_decay", "split", "every")
    dense = spec.method == "dense" or spec.beta2 == usual.beta2
    return dense and all(getattr(spec, name) == getattr(usual, name) for name in settings)


def is_rate(spec: Spec) -> bool:
    """Whether a run belongs to the comparison of learning rates at 16 sequences a step in all."""
    on_as_many = replace(spec, nodes=Spec(0, "", 0.0).nodes)
    compared = spec.method in ("dense", "adamw") and spec.steps == 1000 and spec.nodes * spec.batch == 16
    return compared and is_usual(on_as_many)
