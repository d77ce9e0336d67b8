"""``laconic bench optimizer``: rows, tables and JSON."""

import json

import pytest
from click.testing import CliRunner

from laconic.bench.optimizer import OptimizerSettings, count_notes, measure, parameters_of
from laconic.cli._group import laconic
from laconic.cli.bench_optimizer import command


def test_rows_cover_every_optimizer_and_notes_are_counted() -> None:
    settings = OptimizerSettings(20_000, (1, 6), fractions=(0.01,), repeats=1)
    notes: list[str] = []
    found = measure(settings, notes.append)
    assert len(notes) == count_notes(settings)
    names = ["fused", "foreach", "topk", "block", "x.mul_(1)"]
    assert [row["name"] for row in found["rows"]] == 2 * names
    assert [row["tensors"] for row in found["rows"]] == [1] * 5 + [6] * 5
    assert all(row["ms"] > 0 for row in found["rows"])


def test_parameters_have_about_the_length_that_was_asked_for() -> None:
    shapes = [tuple(parameter.shape) for parameter in parameters_of(10_000, 6)]
    assert shapes == [(25, 100)] * 4 + [(256,)] * 2


def test_unknown_compressors_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown compressor 'none'; known are topk, block"):
        OptimizerSettings(compressors=("none",))


@pytest.mark.parametrize(
    ("dim", "words"),
    [("inf", "a count such as 125e6"), ("0", "a count such as"), ("9", "cut into 150 tensors")],
)
def test_lengths_that_make_no_sense_are_refused(dim: str, words: str) -> None:
    done = CliRunner().invoke(laconic, ["bench", "optimizer", "--dim", dim])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_command_prints_tables_and_json() -> None:
    arguments = ["--dim", "2e4", "--tensors", "3", "--repeats", "1"]
    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 0, shown.output
    assert "CompressedAdamW, BlockTopK, 1 bit" in shown.output
    assert "bytes a parameter" in shown.output
    record = json.loads(CliRunner().invoke(command, [*arguments, "--json", "-"]).stdout)
    assert record["settings"]["tensors"] == [3]
    assert len(record["rows"]) == 7
