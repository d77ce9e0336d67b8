"""What an experiment of a paper is, and what it reports."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

Outcome = Literal["agrees", "erratum", "disagrees"]
Cell = str | int | float

_ORIGINS = {
    "libsvm": "it is a data set of https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html,"
    " to be saved as libsvm/NAME.txt",
    "images": "it is an npz file with x_train, y_train, x_test and y_test, images (N, 32, 32, 3) and classes"
    " (N,) of CIFAR-10, all uint8",
}
"""Where the files of each folder come from."""


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
    """A verdict by a criterion that holds or does not."""
    return Verdict(claim, got, "agrees" if agrees else "disagrees", why)


@dataclass(frozen=True)
class Report:
    """What an experiment brings home.

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
    """How an experiment runs.

    Args:
        quick: smaller or shorter, so that all of them together take minutes on two cores.
        data: the folder with ``libsvm/`` and ``images/``, or None where there is none.
        checkpoint: where a long run keeps what it has done, or None.
        progress: told how far the run is.
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

    def tell(self, share: float, note: str) -> None:
        """Say how far the run is, where somebody listens."""
        if self.progress is not None:
            self.progress(share, note)


@dataclass(frozen=True)
class Experiment:
    """One figure or table of a paper, by name.

    Args:
        name: what to type, as "ef21-stepsize".
        paper: the paper, in the words of the citation.
        figure: which figure, table or section of it.
        shows: what it shows, in one sentence.
        run: makes the report.
        needs: files under the data folder that it cannot do without, as "libsvm/a9a.txt".
        stands_for: set where the paper's own experiment is not reproduced: why, and what stands in for it.
    """

    name: str
    paper: str
    figure: str
    shows: str
    run: Callable[[Settings], Report]
    needs: Sequence[str] = ()
    stands_for: str = ""

    def missing(self, data: Path | None) -> list[str]:
        """Which of the files it needs are not there."""
        return [name for name in self.needs if data is None or not (data / name).exists()]


def by_name(experiments: Iterable[Experiment]) -> Mapping[str, Experiment]:
    """The experiments by name.

    Raises:
        ValueError: where two have one name.
    """
    found: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.name in found:
            raise ValueError(f"two experiments are named {experiment.name!r}")
        found[experiment.name] = experiment
    return found
