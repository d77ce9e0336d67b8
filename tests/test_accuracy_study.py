"""The accuracy study: every method trains, runs are found again, the report has paired gaps."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

STUDY = Path(__file__).parent.parent / "benchmarks" / "accuracy"


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDY))
    for name in ("stages", "training", "study"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("study")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "HERE", tmp_path)
    small = [
        replace(spec, steps=4, width=32, batch=2)
        for spec in list(module.all_specs())[:10]
        if spec.method in ("dense", "adamw", "ef14-sgd", "ef21-sgdm")
    ]
    chosen = list({spec.method: spec for spec in small}.values())
    monkeypatch.setattr(module, "all_specs", lambda: iter(chosen))
    yield module
    for name in ("stages", "training", "study"):
        sys.modules.pop(name, None)


def test_names_of_runs_differ_where_what_is_computed_differs(study):
    stages = importlib.import_module("stages")
    specs = list(stages.all_specs())
    assert len({spec.key for spec in specs}) == len({replace(spec, stage=0) for spec in specs})
    assert replace(specs[0], stage=7).key == specs[0].key


def test_missing_runs_are_made_once_and_reported(study, tmp_path, capsys):
    study.make_missing(1.0)
    runs = {run["method"]: run for run in study.done().values()}
    assert set(runs) == {"dense", "adamw", "ef14-sgd", "ef21-sgdm"}
    assert all(3.0 < run["validation"] < 8.0 for run in runs.values())
    assert runs["dense"]["bits"] == pytest.approx(32, rel=0.01)
    assert runs["adamw"]["bits"] < 0.3
    assert not list((tmp_path / "runs").glob("*.claim"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    study.make_missing(1.0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before
    study.print_status()
    assert "4 of 4 runs" in capsys.readouterr().out
    study.write_report()
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 5
    assert json.loads(next((tmp_path / "runs").glob("dense*")).read_text())["validation"] > 0


def test_a_run_of_a_living_process_is_left_to_it(study, tmp_path):
    (tmp_path / "runs").mkdir()
    specs = study.unique_specs()
    for spec in specs[1:]:
        study.path_of(spec).write_text("{}")
    claim = tmp_path / "runs" / f"{specs[0].key}.claim"
    claim.write_text("1")  # init lives
    study.make_missing(1.0)
    assert not study.path_of(specs[0]).exists()
    claim.write_text("999999999")
    study.make_missing(1.0)
    assert study.path_of(specs[0]).exists()
