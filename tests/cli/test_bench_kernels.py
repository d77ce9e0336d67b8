"""``laconic bench kernels`` and ``laconic warmup``: what they print and write, and that all is as defined."""

import json

import pytest
from click.testing import CliRunner

from laconic.cli._group import laconic

KEYS = {"machine", "repeats", "quick", "steps", "small", "segments", "rates"}


@pytest.mark.slow
def test_tables_and_json_say_the_same(tmp_path):
    out = tmp_path / "kernels.json"
    arguments = ["bench", "kernels", "--quick", "--repeats", "1", "--out", str(out)]
    result = CliRunner().invoke(laconic, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert set(record) == KEYS
    rows = [row for name in ("steps", "small", "segments", "rates") for row in record[name]]
    assert len(rows) > 15
    assert all(row["equal"] for row in rows)
    assert all(value > 0 for row in rows for value in row.values() if isinstance(value, float))
    assert max(map(len, result.stdout.splitlines())) <= 80
    for title in ("EF21's step", "Selection among few", "in one segment and in many", "GB of input"):
        assert title in result.stdout


def test_without_a_gpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(laconic, ["bench", "kernels", "--device", "cuda"])
    assert result.exit_code == 2
    assert "leave --device out" in result.output


@pytest.mark.slow
def test_warmup_says_when_it_is_done():
    result = CliRunner().invoke(laconic, ["warmup"])
    assert result.exit_code == 0, result.output
    assert "the hot loops are ready, after" in result.output


def test_warmup_without_numba_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr("laconic.cli.warmup.find_spec", lambda name: None)
    result = CliRunner().invoke(laconic, ["warmup"])
    assert result.exit_code == 0
    assert "the plain loops run" in result.output
