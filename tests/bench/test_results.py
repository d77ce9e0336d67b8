"""Committed results: the page shows what the files hold; time to loss; predictions beside measured steps."""

import importlib.util
from pathlib import Path

import pytest

from laconic.bench.time_to_loss import steps_to, studied_steps, time_to_loss, value_at
from laconic.plan import Compute, LinkCosts, Method, compare, predict

DOCS = Path(__file__).parents[2] / "docs"


def run(method, lr, seed, losses, steps=100):
    curve = [[steps * (i + 1) / len(losses), loss] for i, loss in enumerate(losses)]
    settings = {"method": method, "lr": lr, "seed": seed, "steps": steps}
    return settings | {"curve": curve, "validation": losses[-1]}


def test_the_page_shows_what_the_files_hold():
    spec = importlib.util.spec_from_file_location("render", DOCS / "results" / "render.py")
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    page = (DOCS / "does-it-help.md").read_text()
    assert render.render(page) == page
    assert page.count("<!-- end -->") == len(render.BLOCK.findall(page))
    assert render.render(page.replace("| recommended |", "| changed |")) == page


def test_a_curve_is_read_between_its_points():
    curve = [(0.0, 5.0), (10.0, 2.0), (20.0, 1.0)]
    assert steps_to(curve, 3.5) == 5
    assert steps_to(curve, 0.5) is None
    assert value_at(curve, 15) == 1.5
    with pytest.raises(ValueError, match="outside"):
        value_at(curve, 30)


def test_steps_to_the_dense_loss_are_paired_by_seed_at_the_best_learning_rate():
    runs = [
        run("dense", 0.1, 0, [4.0, 3.0, 2.0, 1.5, 1.0]),
        run("dense", 0.1, 1, [4.0, 3.0, 2.0, 1.5, 1.2]),
        run("dense", 0.2, 0, [4.0, 3.9, 3.8, 3.7, 3.6]),
        run("adamw", 0.4, 0, [4.0, 3.5, 2.5, 1.75, 1.1]),
        run("adamw", 0.4, 1, [4.0, 3.5, 2.5, 1.75, 1.1]),
        run("ef14-sgd-0", 0.3, 0, [4.0, 4.0, 4.0, 4.0, 3.0]),
        run("adamw", 0.4, 2, [1.0, 1.0], steps=50),
    ]
    found = studied_steps(runs)
    # The dense loss after 70 steps is 1.75 in both seeds.
    assert found["adamw"] == {
        "lr": 0.4,
        "run_steps": 100,
        "dense_steps": pytest.approx(70),
        "seeds": 2,
        "each": [pytest.approx(80), pytest.approx(80)],
        "steps": pytest.approx(80),
    }
    assert found["ef14-sgd-0"]["steps"] is None


def test_time_to_loss_is_the_step_times_steps():
    rows = [
        {"model": "m", "link": "l", "method": "bf16-adamw", "step_ms": 1000.0, "compute_ms": 100.0},
        {"model": "m", "link": "l", "method": "recommended", "step_ms": 150.0, "compute_ms": 100.0},
        {"model": "m", "link": "l", "method": "recommended-hook", "step_ms": 150.0, "compute_ms": 100.0},
        {"model": "m", "link": "other", "method": "recommended", "step_ms": 1.0, "compute_ms": 1.0},
    ]
    studied = {
        "adamw": {"steps": 80.0, "dense_steps": 70.0},
        "ef14-sgd-0": {"steps": None, "dense_steps": 70.0},
    }
    (found,) = time_to_loss(rows, studied)
    assert (found["seconds"], found["dense_seconds"]) == (pytest.approx(12.0), pytest.approx(70.0))
    assert found["of_ceiling"] == pytest.approx(70 / 12 / 10)


def test_predictions_are_compared_with_the_rows_of_their_methods():
    link = LinkCosts(1e-4, 1e7, 1e7, 1e7)
    methods = [
        Method("bf16", "bf16", 1_000_000, loss_gap=0.0),
        Method("CompressedAdamW, 1 %, 1 bit", "messages", 10_000, loss_gap=0.1),
        Method("EF21, 1 %, bf16", "messages", 1_000),
        Method("local steps, 4 x 3 %, 2 bits", "messages", 1_000, loss_gap=2.4),
    ]
    compute = Compute(forward=0.1)
    predictions = [predict(method, link, compute, 4) for method in methods]
    steps = {"bf16-adamw": 240.0, "recommended": 110.0, "ef21-bf16": 90.0}
    rows = [{"method": name, "step_ms": ms, "compute_ms": 80.0} for name, ms in steps.items()]
    found = compare(predictions, compute, rows)
    assert set(found["methods"]) == {"bf16", "CompressedAdamW, 1 %, 1 bit", "EF21, 1 %, bf16"}
    dense = found["methods"]["bf16"]
    assert dense["from_probe"] == pytest.approx(1e3 * predictions[0].step)
    # Compute alone took 80 ms in the benchmark, 100 in the probe.
    assert dense["predicted"] == pytest.approx(dense["from_probe"] - 20)
    assert dense["ratio"] == pytest.approx(dense["predicted"] / 240)
    # EF21 is faster, but of unknown loss.
    assert found["chosen"] == found["best"] == "CompressedAdamW, 1 %, 1 bit"
    assert found["cost"] == 1
    # The dense step was measured shorter.
    slow = compare(predictions, compute, [rows[0] | {"step_ms": 100.0}, rows[1] | {"step_ms": 150.0}])
    assert (slow["best"], slow["cost"]) == ("bf16", 1.5)
