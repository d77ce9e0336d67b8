"""The study's tables in docs/how-to-choose.md."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recipes import LINES
from report import LABELS, MINIMISERS, Row, Run, best, is_rate, rows_of
from stages import LR, SHARE

PAGE = Path(__file__).parents[2] / "docs" / "how-to-choose.md"
BLOCK = re.compile(r"(<!-- study (\w+) -->\n\n).*?(\n\n<!-- /study -->)", re.DOTALL)


def render(page: str, runs: Sequence[Run]) -> str:
    """The page with the tables of these runs."""
    rows = rows_of(runs)
    return BLOCK.sub(lambda found: found[1] + TABLES[found[2]](rows) + found[3], page)


def recipes(rows: Sequence[Row]) -> str:
    """A line for each recipe that has runs."""
    by_key = {row.spec.key: row for row in rows}
    heads = ("", "steps", "learning rate", "loss", "gap to dense AdamW", "of bf16's bytes")
    lines = []
    for label, spec in LINES:
        if row := by_key.get(spec.key):
            lines.append((label, f"{spec.steps:,}", f"{spec.lr:g}", f"{row.loss:.4f}", *_gap_and_bytes(row)))
    return _table(heads, lines)


def nodes(rows: Sequence[Row]) -> str:
    """The learning rate of CompressedAdamW by the number of nodes."""
    heads = ("nodes", "dense AdamW", "half of root n", "root n", "twice root n")
    lines = []
    for count in (2, 4, 8, 16):
        own = [row for row in rows if row.spec.nodes == count and is_rate(row.spec)]
        dense = [row for row in own if row.spec.method == "dense" and row.spec.lr == LR]
        if not dense:
            continue
        cells = [f"{dense[0].loss:.3f}"]
        for factor in (0.5, 1.0, 2.0):
            lr = factor * count**0.5 * LR
            found = [row for row in own if row.spec.method == "adamw" and abs(row.spec.lr - lr) < 1e-9]
            cells.append(_gap(found[0]) if found else "")
        lines.append((str(count), *cells))
    return _table(heads, lines)


def digits(rows: Sequence[Row]) -> str:
    """Every method on the images, at the best learning rate of its grid."""
    heads = ("", "learning rate", "loss", "gap to dense AdamW", "of bf16's bytes")
    lines = [
        (LABELS[row.spec.method], f"{row.spec.lr:g}", f"{row.loss:.4f}", *_gap_and_bytes(row))
        for row in sorted(best(rows), key=lambda row: list(LABELS).index(row.spec.method))
        if row.spec.task == "digits" and row.spec.method not in MINIMISERS
    ]
    return _table(heads, lines)


def batches(rows: Sequence[Row]) -> str:
    """Training losses of EF14 and EF21 by the size of the batch."""
    heads = ("images a node and step", "EF14", "EF21")
    found = {(row.spec.batch, row.spec.method): row for row in best(rows) if row.spec.method in MINIMISERS}
    sizes = sorted({batch for batch, _ in found}, key=lambda batch: batch or float("inf"))
    lines = []
    for size in sizes:
        cells = [
            f"{row.training:.4g} ({row.spec.lr:g})" if (row := found.get((size, method))) else ""
            for method in MINIMISERS
        ]
        lines.append((str(size) if size else f"all {SHARE}", *cells))
    return _table(heads, lines)


DENSE_METHODS = ("dense", "sgd")
TABLES: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "recipes": recipes,
    "nodes": nodes,
    "digits": digits,
    "batches": batches,
}


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ("---",) * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _gap_and_bytes(row: Row) -> tuple[str, str]:
    sent = "" if row.spec.method in DENSE_METHODS else f"{100 * row.bits / 16:.2f} %"
    return "" if row.spec.method == "dense" else _gap(row), sent


def _gap(row: Row) -> str:
    """The mean with its interval; of two seeds both."""
    if row.seeds > 2 and row.gap is not None and row.half is not None:
        low, high = row.gap - row.half, row.gap + row.half
        return f"{row.gap:+.2f} % ({low:+.2f} to {high:+.2f} %, {row.seeds} seeds)"
    return ", ".join(f"{gap:+.2f}" for gap in row.gaps) + " %"
