"""Files of an experiment's run: figure (PNG), numbers (CSV), verdicts (JSON)."""

import csv
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from laconic import __version__
from laconic.papers._experiment import Experiment, Report, Verdict

_DPI = 150


@dataclass(frozen=True)
class Key:
    """Identity of a run: a stored run with the same key need not run again.

    Args:
        name: the experiment's.
        quick: whether it ran smaller or shorter.
        version: Laconic's.
        data: the SHA-256 of each file that it needs.
    """

    name: str
    quick: bool
    version: str
    data: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """All of it, in 16 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def key_of(experiment: Experiment, quick: bool, data: Path | None) -> Key:
    """The key of a run with the data that are there now."""
    files = [] if data is None else [(name, data / name) for name in sorted(experiment.needs)]
    digests = {name: _digest(path) for name, path in files if path.is_file()}
    return Key(experiment.name, quick, __version__, digests)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Record:
    """The content of ``NAME.json``.

    Args:
        key: its identity.
        verdicts: the run against the paper.
        notes: what a reader should know.
        versions: of Python and the packages.
        seconds: duration.
    """

    key: Key
    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    versions: Mapping[str, str]
    seconds: float

    @property
    def outcome(self) -> str:
        """The worst of the verdicts: "disagrees" before "erratum" before "agrees"."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        return next((worst for worst in ("disagrees", "erratum") if worst in outcomes), "agrees")

    def counts(self) -> str:
        """Number of verdicts of each kind, in words."""
        words = {
            "agrees": ("agrees", "agree"),
            "erratum": ("erratum", "errata"),
            "disagrees": ("disagrees", "disagree"),
        }
        return counted([verdict.outcome for verdict in self.verdicts], words)


def counted(states: Sequence[str], words: Mapping[str, tuple[str, str]]) -> str:
    """Number of each, with the word for one and for several."""
    numbers = {state: states.count(state) for state in words}
    return ", ".join(f"{n} {words[state][n != 1]}" for state, n in numbers.items() if n)


@dataclass(frozen=True)
class Attempt:
    """An experiment, and its record or why there is none.

    Args:
        experiment: which one.
        record: of its run.
        reason: why it was not run, or how it failed.
        failed: whether it failed.
    """

    experiment: Experiment
    record: Record | None = None
    reason: str = ""
    failed: bool = False

    @property
    def state(self) -> str:
        """The record's outcome, "failed" or "not run"."""
        if self.record is not None:
            return self.record.outcome
        return "failed" if self.failed else "not run"

    @property
    def bad(self) -> bool:
        """Whether it speaks against the reproduction: an experiment that was not run does not."""
        return self.state in ("disagrees", "failed")


def versions() -> dict[str, str]:
    """Versions of Python, Laconic and the numerical packages."""
    packages = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")
    return {"python": platform.python_version(), "laconic": __version__} | {p: version(p) for p in packages}


def write(folder: Path, experiment: Experiment, key: Key, report: Report, seconds: float) -> Record:
    """Write ``NAME.png`` (150 dpi), ``NAME.csv`` and, last, ``NAME.json``.

    Args:
        folder: which exists.
        experiment: what was run.
        key: identity of the run.
        report: its result.
        seconds: duration.

    Returns:
        The content of the JSON file.

    Raises:
        ValueError: where a row of the table has not one cell for each column.
    """
    forget(folder, experiment.name)
    png, table, said = _paths(folder, experiment.name)
    report.figure.savefig(png, dpi=_DPI)
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(report.columns)
        for row in report.rows:
            if len(row) != len(report.columns):
                raise ValueError(
                    f"{experiment.name}: a row of {len(row)} cells under {len(report.columns)} columns"
                )
            rows.writerow(row)
    record = Record(key, tuple(report.verdicts), tuple(report.notes), versions(), seconds)
    # The record says that the other two are whole, so it appears at once and last.
    partial = said.with_suffix(".json.part")
    text = json.dumps(described(experiment, record), indent=2, allow_nan=False, ensure_ascii=False)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, said)
    return record


def described(experiment: Experiment, record: Record) -> dict[str, Any]:
    """The record as JSON has it."""
    about = {
        field: getattr(experiment, field) for field in ("name", "paper", "figure", "shows", "stands_for")
    }
    return about | {
        "outcome": record.outcome,
        "verdicts": [asdict(verdict) for verdict in record.verdicts],
        "notes": list(record.notes),
        "settings": {"quick": record.key.quick, "data": dict(record.key.data)},
        "versions": dict(record.versions),
        "seconds": round(record.seconds, 3),
        "fingerprint": record.key.fingerprint,
    }


def read(folder: Path, key: Key) -> Record | None:
    """The record of a run with this key, or None where the folder has none that is whole."""
    png, table, said = _paths(folder, key.name)
    if not (png.is_file() and table.is_file() and said.is_file()):
        return None
    try:
        stored = json.loads(said.read_text(encoding="utf-8"))
        if stored["fingerprint"] != key.fingerprint:
            return None
        verdicts = tuple(Verdict(**one) for one in stored["verdicts"])
        return Record(key, verdicts, tuple(stored["notes"]), stored["versions"], float(stored["seconds"]))
    except (ValueError, KeyError, TypeError):
        return None


def forget(folder: Path, name: str) -> None:
    """Delete an experiment's record, before its figure and numbers are replaced."""
    *_, said = _paths(folder, name)
    said.unlink(missing_ok=True)


def _paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / f"{name}.png", folder / f"{name}.csv", folder / f"{name}.json"
