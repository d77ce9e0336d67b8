"""``laconic inspect`` and ``laconic bench wire``."""

import json

import pytest
import torch
from click.testing import CliRunner
from corpus import corpus

import laconic as lc
from laconic.cli.bench_wire import command as bench
from laconic.cli.inspect import command as inspect
from laconic.wire import inspect_message


def named(tmp_path):
    layout = lc.Layout.of({"encoder.weight": (30, 50), "norm.bias": (50,)}, exact=["norm.bias"])
    method = lc.EF21(lc.TopK(0.05) >> lc.BlockQuantizer(4), init="compressed")
    message = method.sender(layout).send(torch.arange(1550.0))
    path = tmp_path / "message.bin"
    path.write_bytes(lc.pack(message, layout=layout).numpy().tobytes())
    return path


@pytest.mark.parametrize("sample", [s for s in corpus() if s.expect is None][::5], ids=lambda s: s.name)
def test_every_message_can_be_inspected(sample):
    report = inspect_message(sample.packed)
    assert report.nbytes == len(sample.packed)
    assert report.d == sample.message.d
    json.dumps(report.as_dict())


def test_a_message_in_a_file(tmp_path):
    path = named(tmp_path)
    shown = CliRunner().invoke(inspect, [str(path)])
    assert shown.exit_code == 0, shown.output
    for text in ("encoder.weight", "norm.bias", "elias-fano", "BlockLevels 4", "float32", "125 of 1,550"):
        assert text in shown.output
    report = json.loads(CliRunner().invoke(inspect, [str(path), "--json"]).output)
    assert report["kept"] == 125
    assert report["nbytes"] == path.stat().st_size
    assert report["segments"][1]["name"] == "norm.bias"


def test_a_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    torch.save(
        {"memory": {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([float("nan")])}, "round": 7}, path
    )
    shown = CliRunner().invoke(inspect, [str(path), "--json"])
    assert json.loads(shown.output) == {
        "memory.a": "float32 (2,), norm 5",
        "memory.b": "float32 (1,), norm nan, 1 NOT FINITE",
        "round": "7",
    }
    assert "memory.a" in CliRunner().invoke(inspect, [str(path)]).output


def test_other_files_are_refused_without_running_them(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(b"Lc\x01 is how a message starts, but this is none")
    assert isinstance(CliRunner().invoke(inspect, [str(path)]).exception, lc.WireError)
    path.write_text("print('hello')")
    refused = CliRunner().invoke(inspect, [str(path)]).exception
    assert isinstance(refused, ValueError)
    assert "neither a packed message nor a checkpoint" in str(refused)
    assert "weights_only" not in str(refused)


def test_bench_wire():
    options = ["--dim", "20000", "--repeats", "1", "--rounds", "1"]
    shown = CliRunner().invoke(bench, options)
    assert shown.exit_code == 0, shown.output
    assert "by parameter, adaptive" in shown.output
    tables = json.loads(CliRunner().invoke(bench, [*options, "--json"]).stdout)
    assert [row["form"] for row in tables["positions"]] == ["fixed", "adaptive"] * 3
    assert {"positions", "values", "messages", "real"} <= tables.keys()
