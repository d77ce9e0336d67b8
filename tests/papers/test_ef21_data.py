"""The experiments of EF21 on real data, small: each verdict, and those that are known to disagree."""

import os
from pathlib import Path

import pytest

from laconic.papers import Settings
from laconic.papers import _ef21_deep as deep
from laconic.papers import _ef21_finetuned as finetuned
from laconic.papers import _ef21_least_squares as least_squares
from laconic.papers import _ef21_stepsize as stepsize
from laconic.papers._training import Training

DATA = os.environ.get("LACONIC_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="LACONIC_DATA is not set; it names a folder with libsvm/ and images/"
)
SETTINGS = Settings(quick=True, data=Path(DATA) if DATA else None)


def check(report, tmp_path, disagreeing=()):
    """Each verdict agrees, but for those whose claim begins in a known way, which do not."""
    for verdict in report.verdicts:
        known = any(verdict.claim.startswith(start) for start in disagreeing)
        assert verdict.outcome == ("disagrees" if known else "agrees"), verdict
    assert {len(row) for row in report.rows} == {len(report.columns)}
    report.figure.savefig(tmp_path / "figure.png", dpi=40)


def test_an_interrupted_run_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    settings = Settings(quick=True, data=SETTINGS.data, checkpoint=tmp_path)
    size = {"seeds": 1, "times": 0.1, "data_sets": ("phishing",)}
    small = {"batches": (4,), "steps": 2, "evaluated": 1, "seeds": 2, "test_images": 50}
    small["grids"] = {"plain": (0.05,)}
    once = [tuple(finetuned.report(settings, **size).rows), tuple(deep.report(settings, **small).rows)]
    assert len(list(tmp_path.iterdir())) == 4 + 8
    # What is kept is taken: nothing is trained again.
    monkeypatch.setattr(Training, "run", None)
    again = [tuple(finetuned.report(settings, **size).rows), tuple(deep.report(settings, **small).rows)]
    assert once == again


def test_stepsize_tolerance(tmp_path):
    size = {"data_sets": ("phishing",), "multiples": (4, 16, 64, 256), "rounds": 800}
    check(stepsize.report(SETTINGS, **size), tmp_path)


def test_tuned_k_and_stepsizes(tmp_path):
    check(finetuned.report(SETTINGS, seeds=2, times=1.6, data_sets=("phishing",)), tmp_path)


def test_tuned_k_and_stepsizes_on_a9a(tmp_path):
    # 34 thousand bits and more, at these starts and others, where the poster shows 23 thousand.
    report = finetuned.report(SETTINGS, seeds=2, times=1.6, data_sets=("a9a",))
    check(report, tmp_path, disagreeing=["a9a: EF21+ reaches"])


@pytest.mark.slow
def test_least_squares(tmp_path):
    check(least_squares.report(SETTINGS, rounds=2000, data_sets=("a9a",)), tmp_path)


@pytest.mark.slow
def test_deep(tmp_path):
    grids = {"residual": (0.2,), "plain": (0.05,)}
    size = {"batches": (32,), "steps": 60, "evaluated": 10, "seeds": 2, "test_images": 500}
    report = deep.report(SETTINGS, grids, **size)
    trains, *rest = report.verdicts
    keeping, comparing = rest[:2], rest[2:]
    for verdict in (trains, *keeping):
        assert verdict.outcome == "agrees", verdict
    # Which of two methods is better is what the experiment finds out, not what it presumes.
    assert [verdict.claim.split(":")[1] for verdict in comparing] == [
        " EF21 is at least as good as EF14",
        " EF21 is at least as good as EF14",
        " EF21+ is at least as good as EF21",
        " EF21+ is at least as good as EF21",
    ]
    assert {row[2] for row in report.rows} == set(deep.METHODS)
    assert {len(row) for row in report.rows} == {len(report.columns)}
    report.figure.savefig(tmp_path / "figure.png", dpi=40)
