"""The simulator's benchmark: its contenders do the same thing, and its table says so."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from laconic.bench import lab as bench
from laconic.cli._group import laconic
from laconic.compressors import TopK
from laconic.feedback import EF21
from laconic.lab import LogisticRegression, base_stepsize


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(120):
        columns = np.flatnonzero(rng.random(12) < 0.4) + 1
        features = " ".join(f"{j}:{rng.standard_normal():.3f}" for j in columns)
        lines.append(f"{rng.choice((-1, 1))} {features}")
    path = tmp_path_factory.mktemp("data") / "rows.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_contenders_walk_the_same_course(file):
    data = bench.load(file)
    base = base_stepsize(data.problem, EF21(TopK(1)))
    ours = bench.batched(data, 30)
    for gradient in (bench.by_products, bench.by_rows):
        course = bench.plain(data, gradient, [base * m for m in bench.MULTIPLES], 30)
        np.testing.assert_allclose(course.norms, ours.norms, rtol=1e-9)
        np.testing.assert_array_equal(course.values, ours.values)
        np.testing.assert_array_equal(course.entropy, ours.entropy)


def test_without_a_file_rows_are_drawn(monkeypatch):
    monkeypatch.delenv("LACONIC_DATA", raising=False)
    data = bench.load(None)
    assert data.X.shape == (32561, 123)
    assert (data.X.sum(axis=1) == 14).all()
    assert isinstance(data.problem, LogisticRegression)


def test_more_rounds_than_the_memory_holds(file):
    result = CliRunner().invoke(laconic, ["bench", "lab", str(file), "--rounds", "10000000000"])
    assert result.exit_code == 2
    assert "--rounds must be at most" in result.stderr


def test_table_and_json(file):
    arguments = ["bench", "lab", str(file), "--quick", "--rounds", "25", "--repeats", "1"]
    result = CliRunner().invoke(laconic, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "rows.txt: 20 nodes, 12 multiples, EF21 with Top-1" in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert "…" not in result.output
    for name in bench.NAMES.values():
        assert name in result.output
    assert "bits are equal" in result.output
    found = json.loads(CliRunner().invoke(laconic, [*arguments, "--json"]).stdout)
    assert [row["rounds"] for row in found["rows"]] == [25, 20, 10]
    assert found["rows"][0]["ratio"] == 1
    assert all(row["same_bits"] and row["difference"] < 1e-9 for row in found["rows"])
    assert {"processor", "cores", "torch_threads", "numpy"} <= set(found["machine"])
