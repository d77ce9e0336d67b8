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
    for name in ("stages", "training", "study", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("study")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "HERE", tmp_path)
    small = [
        replace(spec, steps=4, width=32, batch=2)
        for spec in list(module.all_specs())[:20]
        if spec.method in ("dense", "adamw", "ef14-sgd", "ef21-sgdm")
    ]
    chosen = list({spec.method: spec for spec in small}.values())
    monkeypatch.setattr(module, "all_specs", lambda: iter(chosen))
    yield module
    for name in ("stages", "training", "study", "report"):
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
    assert "\n| CompressedAdamW | " in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000
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


def test_gaps_are_paired_by_seed_and_have_intervals(study):
    report = importlib.import_module("report")
    stages = importlib.import_module("stages")

    def run(method, seed, loss, lr=0.1, **settings):
        spec = stages.Spec(1, method, lr, seed, **settings)
        return {**vars(spec), "validation": loss, "bits": 1.0}

    losses = {0: 2.0, 1: 4.0, 2: 3.0}
    runs = [run("dense", seed, loss, beta1=0.7) for seed, loss in losses.items()]
    runs += [run("dense", 0, 9.0, lr=0.2, beta1=0.7)]  # a worse learning rate: not what is compared with
    runs += [run("adamw", seed, loss * (1.01 + 0.01 * seed)) for seed, loss in losses.items()]
    runs += [run("adamw", 0, 2.0, nodes=8)]  # has no dense run
    rows = report.rows_of(runs)
    one = next(row for row in rows if row.spec.method == "adamw" and row.spec.nodes == 4)
    assert (one.seeds, one.gap) == (3, pytest.approx(2.0))
    assert one.half == pytest.approx(4.30265 * 1.0 / 3**0.5, rel=1e-4)  # Student, two degrees of freedom
    assert next(row for row in rows if row.spec.nodes == 8).gap is None
    assert "+2.00 % (-0.48 to +4.48)" in report.table(rows)
