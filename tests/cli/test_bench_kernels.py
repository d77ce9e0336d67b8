"""``laconic bench kernels`` and ``laconic warmup``: what they print and write, and that all is as defined."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from laconic.cli._group import laconic

KEYS = {"machine", "repeats", "quick", "steps", "small", "segments", "hostile", "rates"}


@pytest.mark.slow
def test_tables_and_json_say_the_same(tmp_path):
    out = tmp_path / "kernels.json"
    arguments = ["bench", "kernels", "--quick", "--repeats", "1", "--out", str(out)]
    result = CliRunner().invoke(laconic, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert set(record) == KEYS
    rows = [row for name in ("steps", "small", "segments", "hostile", "rates") for row in record[name]]
    assert len(rows) > 25
    assert all(row["equal"] for row in rows)
    assert all(value > 0 for row in rows for value in row.values() if isinstance(value, float))
    assert max(map(len, result.stdout.splitlines())) <= 80
    for title in (
        "EF21's step",
        "Selection among few",
        "in one segment and in many",
        "Hostile data",
        "GB of input",
    ):
        assert title in result.stdout


def test_without_a_gpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(laconic, ["bench", "kernels", "--device", "cuda"])
    assert result.exit_code == 2
    assert "leave --device out" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [[], ["--jobs", "1"]])
def test_warmup_says_when_it_is_done(jobs):
    result = CliRunner().invoke(laconic, ["warmup", *jobs])
    assert result.exit_code == 0, result.output
    assert "the hot loops are ready, after" in result.output


LOADED = """
from laconic import kernels
from laconic.cli.warmup import UNITS, compile_unit
from laconic.kernels import _dispatch
from numba.core.dispatcher import Dispatcher
for unit in UNITS:
    compile_unit(unit)
dispatchers = {
    f"{name}.{attribute}": value
    for name, module in _dispatch._cpu_modules.items()
    for attribute, value in vars(module).items()
    if isinstance(value, Dispatcher) and value.targetoptions.get("nogil")
}
print(sum(sum(d.stats.cache_hits.values()) for d in dispatchers.values()))
print([name for name, d in dispatchers.items() if d.stats.cache_misses])
"""


@pytest.mark.slow
def test_what_several_processes_compiled_is_found_by_the_next(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "laconic", "warmup", "--jobs", "2"]
    subprocess.run(command, env=environment, check=True, timeout=280)
    found = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=environment,
        check=True,
        timeout=280,
        capture_output=True,
        text=True,
    )
    hits, missed = found.stdout.splitlines()
    assert int(hits) > 20
    assert missed == "[]"


def test_warmup_where_nothing_can_be_kept_says_so(monkeypatch):
    monkeypatch.setattr("laconic.kernels.keeps_compiled", lambda: False)
    result = CliRunner().invoke(laconic, ["warmup"])
    assert result.exit_code == 0
    assert "set NUMBA_CACHE_DIR to a folder that can" in " ".join(result.output.split())


def test_warmup_without_numba_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr("laconic.cli.warmup.find_spec", lambda name: None)
    result = CliRunner().invoke(laconic, ["warmup"])
    assert result.exit_code == 0
    assert "the plain loops run" in result.output
