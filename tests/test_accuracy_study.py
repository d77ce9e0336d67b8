"""The accuracy study: every method trains, runs are found again, the report has paired gaps."""

import copy
import importlib
import json
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import laconic
from laconic.network import Link

STUDY = Path(__file__).parent.parent / "benchmarks" / "accuracy"
MODULES = (
    "stages",
    "training",
    "study",
    "report",
    "recipes",
    "figures",
    "local",
    "text",
    "digits",
    "real",
    "page",
)


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDY))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("study")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "FIGURES", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- study batches -->\n\nold\n\n<!-- /study -->\nb\n")
    monkeypatch.setattr(importlib.import_module("page"), "PAGE", page)
    small = [
        replace(spec, steps=4, width=32, batch=2, nodes=4, every=min(spec.every, 2), first=0.0, seed=0)
        for spec in module.all_specs()
        if spec.task == "text" or spec.stage == 7
    ]
    chosen = list({spec.method: spec for spec in small}.values())
    monkeypatch.setattr(module, "all_specs", lambda: iter(chosen))
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_names_of_runs_differ_where_what_is_computed_differs(study):
    stages = importlib.import_module("stages")
    specs = list(stages.all_specs())
    assert len({spec.key for spec in specs}) == len({replace(spec, stage=0) for spec in specs})
    assert replace(specs[0], stage=7).key == specs[0].key


def test_missing_runs_are_made_once_and_reported(study, tmp_path, capsys):
    study.make_missing(1.0)
    runs = {run["method"]: run for run in study.done().values()}
    assert set(runs) == {
        *("dense", "sgd", "adamw", "ef14-sgd", "ef14-sgd-0", "ef21-sgdm", "local", "ef14", "ef21")
    }
    for run in runs.values():
        chance = math.log(128 if run["task"] == "text" else 10)
        assert 0.7 * chance < run["validation"] < 1.6 * chance
    assert runs["dense"]["bits"] == pytest.approx(32, rel=0.01)
    assert runs["adamw"]["bits"] < 0.3
    assert not list((tmp_path / "runs").glob("*.claim"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    study.make_missing(1.0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before
    study.print_status()
    assert "runs, " in capsys.readouterr().out
    study.write_report()
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 10
    assert "old" not in (tmp_path / "page.md").read_text()
    assert "EF21" in (tmp_path / "page.md").read_text()
    assert "\n| CompressedAdamW | " in (tmp_path / "results.md").read_text()
    for name in ("methods", "recipes", "nodes", "batches"):
        has_runs = name in ("methods", "batches")
        assert (tmp_path / f"study-{name}.png").exists() == has_runs, name
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
        return {**vars(spec), "validation": loss, "training": loss, "bits": 1.0}

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
    assert len(report.best(rows)) == 3  # of the two dense rates the better one
    assert "+2.00 % (-0.48 to +4.48)" in report.table(rows)


def test_local_steps_of_one_node_are_those_of_the_optimiser(study):
    local = importlib.import_module("local")
    feedback = laconic.EF14(laconic.BlockTopK(3, 64) >> laconic.BlockQuantizer(2), decay=0.95)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.Tanh(), nn.Linear(20, 3, bias=False))
    other = copy.deepcopy(model)
    make = local.adamw(0.02, (0.0, 0.99), 0.0)
    nodes = local.LocalNodes(model, 1, feedback, make, clip=1e9)
    steps = laconic.optim.LocalSteps(make(other), every=2, feedback=feedback, exempt=lambda *_: False)
    for step in range(6):
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step))
        nodes.step([lambda own, x=x: own(x).square().mean()])
        if step % 2:
            nodes.exchange()
        steps.zero_grad()
        other(x).square().mean().backward()
        steps.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert nodes.bits > 0
    steps.close()


def test_real_ranks_follow_the_simulated_runs(study, monkeypatch):
    real, training = importlib.import_module("real"), importlib.import_module("training")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    runs = {}
    for method, lr in (("dense", 0.004), ("adamw", 0.008)):
        spec = next(iter(study.all_specs()))
        spec = replace(spec, method=method, lr=lr, steps=20, beta1=0.7 * (method == "dense"))
        found = training.run(spec, lambda _: None)
        runs[method] = asdict(spec) | found | {"curve": [(0, 9.0), (20, found["validation"])]}
    cell = real.measure(Link(None), ("dense", "adamw"), runs, turns=1)
    assert [row["method"] for row in cell["rows"]] == ["bf16-adamw", "recommended"]
    for method, run in cell["runs"].items():
        assert run["steps"] == 20  # the goal, between start and end on a line, is met at the end alone
        assert run["seconds"] > 0
        assert run["loss"] == pytest.approx(runs[method]["validation"], rel=1e-2)


def test_a_claim_whose_owner_ends_meanwhile_is_taken(study, tmp_path, monkeypatch):
    claim, times = tmp_path / "x.claim", iter([True, False])
    plain = Path.open

    def racing(self, mode="r", *rest, **named):
        if self == claim and mode == "x" and next(times):
            raise FileExistsError
        return plain(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", racing)
    assert study._claim(claim)
    assert claim.read_text() == str(os.getpid())


@pytest.mark.usefixtures("study")
def test_nothing_is_drawn_of_no_runs(tmp_path):
    importlib.import_module("figures").draw([], tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_the_page_has_the_runs_that_are_there(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDY))
    page = importlib.import_module("page")
    runs = [json.loads(path.read_text()) for path in sorted((STUDY / "runs").glob("*.json"))]
    text = page.PAGE.read_text()
    assert page.render(text, runs) == text, "run: python benchmarks/accuracy/study.py --report"


def _runs(method, lr, losses, **settings):
    stages = importlib.import_module("stages")
    specs = [stages.Spec(0, method, lr, seed, **settings) for seed in range(len(losses))]
    rest = {"training": 1.0, "bits": 0.16, "curve": [(1, 1.0)]}
    return [asdict(spec) | {"validation": loss} | rest for spec, loss in zip(specs, losses, strict=True)]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("page")


def test_gaps_of_two_seeds_are_both_named_and_of_three_their_mean(page):
    report, stages = importlib.import_module("report"), importlib.import_module("stages")
    dense = _runs("dense", stages.LONG_LR, [2.0, 2.0, 2.0], beta1=0.7)
    two = _runs("adamw", 2 * stages.LONG_LR, [2.02, 2.04], density=0.001)
    three = _runs("adamw", 2 * stages.LONG_LR, [2.02, 2.02, 2.02])
    lines = page.recipes(report.rows_of(dense + two + three)).splitlines()
    assert lines[2:] == [
        "| dense AdamW | 3,000 | 0.002 | 2.0000 |  |  |",
        "| `CompressedAdamW` | 3,000 | 0.004 | 2.0200 | +1.00 % (+1.00 to +1.00 %, 3 seeds) | 1.00 % |",
        "| the same, 0.1 % | 3,000 | 0.004 | 2.0300 | +1.00, +2.00 % | 1.00 % |",
    ]


def test_dense_is_tuned_over_all_seeds_and_not_for_each(page):
    report = importlib.import_module("report")
    dense = _runs("dense", 0.001, [2.0, 3.0, 2.5]) + _runs("dense", 0.002, [2.2, 2.0, 2.2])
    dense += _runs("dense", 0.004, [1.0])  # one seed is not enough to be the best
    row = report.rows_of(dense + _runs("adamw", 0.004, [2.2, 2.2, 2.2]))[-1]
    assert row.gaps == pytest.approx((0.0, 10.0, 0.0))
    assert [found.spec.lr for found in report.best(report.rows_of(dense))] == [0.002]


def test_learning_rates_are_set_beside_the_root_of_the_number_of_nodes(page, tmp_path):
    figures, report = importlib.import_module("figures"), importlib.import_module("report")
    lr = importlib.import_module("stages").LR
    same = {"steps": 1000, "nodes": 16, "batch": 1}
    runs = _runs("dense", lr, [2.0], beta1=0.7, **same)
    for factor, loss in ((2, 2.2), (4, 2.02), (8, 3.0)):
        runs += _runs("adamw", factor * lr, [loss], **same)
    assert page.nodes(report.rows_of(runs)).splitlines()[2:] == [
        "| 16 | 2.000 | +10.00 % | +1.00 % | +50.00 % |"
    ]
    figures.draw(runs, tmp_path)
    assert (tmp_path / "study-nodes.png").exists()


def test_methods_without_momentum_are_compared_by_the_training_loss(page):
    report = importlib.import_module("report")
    digits = importlib.import_module("stages").DIGITS
    runs = []
    for method, lr, loss in (("ef14", 0.1, 0.5), ("ef14", 0.3, 0.25), ("ef21", 0.1, 0.125)):
        run = _runs(method, lr, [1.0], **{**digits, "batch": 0})[0]
        runs.append({**run, "training": loss, "validation": 1 - loss})
    assert page.batches(report.rows_of(runs)).splitlines()[2:] == ["| all 359 | 0.25 (0.3) | 0.125 (0.1) |"]
    assert page.digits(report.rows_of(runs)).count("\n") == 1
