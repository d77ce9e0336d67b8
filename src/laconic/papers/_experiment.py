"""Experiments of a paper: settings, report, verdicts, and grids of runs with progress and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Outcome = Literal["agrees", "erratum", "disagrees"]
Cell = str | int | float
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

EF21_PAPER = (
    "Richtárik, Sokolov and Fatkhullin, EF21: A New, Simpler, Theoretically Better, and Practically Faster"
    " Error Feedback, NeurIPS 2021"
)
BIASED_PAPER = "On Biased Compression for Distributed Learning"

_ORIGINS = {
    "libsvm": "it is a data set of https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html,"
    " to be saved as libsvm/NAME.txt",
    "images": "it is an npz file with x_train, y_train, x_test and y_test, images (N, 32, 32, 3) and classes"
    " (N,) of CIFAR-10, all uint8",
}
"""Sources of the files, by folder."""


@dataclass(frozen=True)
class Verdict:
    """One statement of the paper, held against the run.

    Args:
        claim: what the paper shows or prints.
        got: what the run gave, with numbers.
        outcome: "agrees"; "erratum" where the paper is known to be wrong there; or "disagrees".
        why: what decided it: the criterion, or for an erratum its name in the docs.
    """

    claim: str
    got: str
    outcome: Outcome
    why: str


def verdict(claim: str, got: str, agrees: bool, why: str) -> Verdict:
    """The verdict of a criterion that holds or does not."""
    return Verdict(claim, got, "agrees" if agrees else "disagrees", why)


@dataclass(frozen=True)
class Report:
    """The result of an experiment.

    Args:
        figure: the figure; every experiment has one.
        columns: names of the table's columns, units included.
        rows: the numbers behind the figure, for a CSV file.
        verdicts: the run against the paper.
        notes: what a reader should know, as where the settings differ from the paper's.
    """

    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether no verdict disagrees, errata aside."""
        return all(verdict.outcome != "disagrees" for verdict in self.verdicts)


Progress = Callable[[float, str], None]
"""Called with the share done in [0, 1] and a short note."""


class DataMissingError(ValueError):
    """An experiment needs data that are not there; the message says where to get them."""


@dataclass(frozen=True)
class Settings:
    """Settings of an experiment's run.

    Args:
        quick: smaller or shorter, so that all of them together take minutes on two cores.
        data: the folder with ``libsvm/`` and ``images/``, or None where there is none.
        checkpoint: a folder for the state of a long run, or None.
        progress: called with the share done and a note, or None.
    """

    quick: bool = False
    data: Path | None = None
    checkpoint: Path | None = None
    progress: Progress | None = None

    def file(self, name: str) -> Path:
        """The path of a file under the data folder.

        Raises:
            DataMissingError: where it is not there.
        """
        if self.data is None or not (self.data / name).exists():
            folder = "none is given" if self.data is None else self.data
            raise DataMissingError(
                f"{name} is not in the data folder ({folder}), which the environment variable LACONIC_DATA"
                f" may name; {_ORIGINS[name.split('/', maxsplit=1)[0]]}"
            )
        return self.data / name

    def report_progress(self, share: float, note: str) -> None:
        """Call ``progress``, if there is one."""
        if self.progress is not None:
            self.progress(share, note)

    def track(self, items: Iterable[T], note: Callable[[T], str] = str) -> Iterator[T]:
        """The items one after another; progress is reported before each."""
        items = list(items)
        for number, item in enumerate(items):
            self.report_progress(number / len(items), note(item))
            yield item
        self.report_progress(1.0, "done")

    def grid(self, rows: Iterable[A], columns: Iterable[B], run: Callable[[A, B], T]) -> dict[A, dict[B, T]]:
        """Run each pair, as of data set and method; results by row, then by column."""
        found: dict[A, dict[B, T]] = {}
        for row, column in self.track(product(rows, columns), lambda cell: f"{cell[1]}, {_label(cell[0])}"):
            found.setdefault(row, {})[column] = run(row, column)
        return found

    def cached(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A JSON object: read from the checkpoint folder if it is there, else made and written to it."""
        if self.checkpoint is None:
            return make()
        path = self.checkpoint / f"{name}.json"
        if not path.exists():
            part = path.with_suffix(".part")  # so that an interruption leaves no half of a file
            part.write_text(json.dumps(make()), encoding="utf-8")
            part.replace(path)
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return stored


@dataclass(frozen=True)
class Experiment:
    """One figure or table of a paper, by name.

    Args:
        name: what to type, as "ef21-stepsize".
        paper: the paper, in the words of the citation.
        figure: which figure, table or section of it.
        shows: what it shows, in one sentence.
        report: makes the report from the settings; its keyword arguments default to a full run.
        needs: files under the data folder that it cannot do without, as "libsvm/a9a.txt".
        stands_for: set where the paper's own experiment is not reproduced: why, and what stands in for it.
        quick: the keyword arguments of a quick run.
    """

    name: str
    paper: str
    figure: str
    shows: str
    report: Callable[..., Report]
    needs: Sequence[str] = ()
    stands_for: str = ""
    quick: Mapping[str, Any] = field(default_factory=dict)

    def run(self, settings: Settings) -> Report:
        """Run it, quick or in full."""
        return self.report(settings, **(self.quick if settings.quick else {}))

    def missing(self, data: Path | None) -> list[str]:
        """The files it needs that are not there."""
        return [name for name in self.needs if data is None or not (data / name).exists()]


def _label(row: object) -> str:
    return ", ".join(map(str, row)) if isinstance(row, tuple) else str(row)
