"""The check for GPUs without one: every part at tiny sizes, its rows and tables, its limits."""

import importlib.util
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "check.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]


def run(out, *options):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rehearse", "--out", out, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done, json.loads((out / "gpu-check.json").read_text())


@pytest.mark.parametrize(
    ("part", "rows"),
    [(1, 2), (2, 19), (3, 6), (4, 4), (5, 3), (6, 2)],
)
@pytest.mark.timeout(900)
def test_a_part(part, rows, tmp_path):
    done, record = run(tmp_path, "--only", str(part))
    found = record["parts"][str(part)]
    assert done.returncode == 0, done.stdout + found["log"]
    assert found["passed"]
    assert found["ended"] == "well"
    assert len(found["rows"]) == rows
    assert all(row.get("ok", True) for row in found["rows"])
    for row in found["rows"]:
        assert all(name in done.stdout for name in row)


def test_a_part_is_ended_at_its_limit(tmp_path):
    done, record = run(tmp_path, "--only", "2", "--limit", "1")
    found = record["parts"]["2"]
    assert done.returncode == 1
    assert found["ended"] == "at its limit"
    assert not found["passed"]
    assert found["seconds"] < 60
    assert "FAILED" in done.stdout


def test_limits_add_up():
    spec = importlib.util.spec_from_file_location("check", SCRIPT)
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert sum(check.LIMITS["quick"].values()) < 240
    assert sum(check.LIMITS["full"].values()) <= 480
    with pytest.raises(SystemExit):
        check.main(["--only", "7"])
    tables = check._tables([{"a": 1.23456, "b": "x"}, {"a": 2.0, "b": "y"}, {"c": True}])
    assert tables == [[["a", "b"], ["1.235", "x"], ["2", "y"]], [["c"], ["True"]]]
