"""``compare``: several methods on one problem, each at its stepsize multiples."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from laconic.compressors import Compressor
from laconic.feedback import Feedback, make_feedback
from laconic.lab._problem import Problem
from laconic.lab._recorder import check_rounds
from laconic.lab._result import Direction, Result
from laconic.lab._run import run
from laconic.lab._simulation import ACCOUNTINGS

_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
_LISTED = 500

OnMethod = Callable[[str, int, float], None]
"""Called with a method's name, a round, and the smallest ``|grad f|^2`` among its runs."""


@dataclass(frozen=True)
class Comparison:
    """Results by method name, in the order asked for.

    Args:
        results: name to result.
        stop: the tolerance on ``|grad f|^2``.
        notes: what the reader should know, as that a compressor was scaled.
    """

    results: dict[str, Result]
    stop: float
    notes: tuple[str, ...]

    def summary(self) -> list[dict[str, Any]]:
        """One row a method at its best multiple: names, stepsize, rounds, end, bits per node."""
        rows = []
        for name, result in self.results.items():
            i = result.best()
            end, rounds = str(result.ends[i]), int(result.rounds[i])
            rows.append(
                {
                    "method": name,
                    "multiple": result.multiples[i],
                    "stepsize": result.base_stepsize * result.multiples[i],
                    "end": end,
                    "rounds": rounds,
                    "grad_norm2": float(result.final[i]),
                    "bits_up": {kind: float(result.bits(kind)[i, rounds]) for kind in ACCOUNTINGS},
                    "bits_down": {kind: float(result.bits(kind, "down")[i, rounds]) for kind in ACCOUNTINGS},
                }
            )
        return rows

    def record(self) -> dict[str, Any]:
        """Everything, for a file: the summary, and every run by round.

        Of a run of more than 1,000 rounds, the first 500 and about 500 others at equal ratios are listed,
        the last among them; "round" says which.
        """
        runs = {
            name: [
                {
                    "multiple": multiple,
                    "stepsize": result.base_stepsize * multiple,
                    "end": str(result.ends[i]),
                    "rounds": int(result.rounds[i]),
                    "round": (shown := _thinned(int(result.rounds[i]))).tolist(),
                    "grad_norm2": result.grad_norm2[i, shown].tolist(),
                    "bits": {
                        direction: {
                            kind: result.bits(kind, direction)[i, shown].tolist() for kind in ACCOUNTINGS
                        }
                        for direction in _DIRECTIONS
                    },
                }
                for i, multiple in enumerate(result.multiples)
            ]
            for name, result in self.results.items()
        }
        return {"stop": self.stop, "notes": list(self.notes), "summary": self.summary(), "runs": runs}


def _thinned(rounds: int) -> npt.NDArray[np.int64]:
    """Rounds of a run that are written to a file."""
    if rounds <= 2 * _LISTED:
        return np.arange(max(rounds, 0) + 1)
    later = np.geomspace(_LISTED, rounds, _LISTED + 1).round().astype(np.int64)
    return np.unique(np.concatenate((np.arange(_LISTED), later)))


def compare(
    problem: Problem,
    methods: Sequence[str],
    compressor: Compressor,
    *,
    multiples: Sequence[float] = (1.0, 4.0, 16.0, 64.0),
    rounds: int = 4000,
    stop: float = 1e-7,
    seed: int = 0,
    on_round: OnMethod | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Run methods of the given names with one compressor.

    A method that needs a contractive compressor gets the compressor's ``contractive()`` form where it is
    not one itself, and a note says so. With ``checkpoint``, a folder, the methods' runs save their state in
    it, and a later call with the same arguments resumes from it, as :func:`run` does.

    Raises:
        ValueError: for an unknown method or settings that a method refuses, before anything runs; and for
            checkpoints that are damaged or belong to other settings.

    Example:
        >>> import laconic
        >>> from laconic.lab import Quadratic, compare
        >>> both = compare(Quadratic.example1(), ["gd", "ef21"], laconic.TopK(1), multiples=(1, 4))
        >>> [(row["method"], row["end"]) for row in both.summary()]
        [('gd', 'tolerance'), ('ef21', 'tolerance')]
    """
    notes: list[str] = []
    feedbacks = {name: _feedback(name, compressor, problem.d, notes) for name in methods}
    for feedback in feedbacks.values():
        feedback.sender(problem.d)
    check_rounds(rounds, len(multiples), results=len(feedbacks))
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, feedback in feedbacks.items():

        def report(t: int, norms: Any, name: str = name) -> None:
            if on_round is not None:
                on_round(name, t, float(norms.min()))

        results[name] = run(
            problem,
            feedback,
            multiples,
            rounds,
            stop,
            seeds=(seed,),
            on_round=report,
            checkpoint=None if folder is None else folder / f"{name}.npz",
        )
    return Comparison(results, stop, tuple(notes))


def _feedback(name: str, compressor: Compressor, d: int, notes: list[str]) -> Feedback:
    if name.startswith("ef") and compressor.constants(d).contraction is None:
        note = f"{compressor!r} is not contractive; methods with feedback use its contractive() form"
        if note not in notes:
            notes.append(note)
        compressor = compressor.contractive()
    return make_feedback(name, compressor)
