"""``laconic bench exchange``: layouts, rows, tables and JSON, also over real processes and from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import laconic
from laconic.bench.cases import BenchSettings, format_of, make_layout, one_thread
from laconic.bench.exchange import METHODS, PHASES, Rank, count_notes, measure
from laconic.bench.timing import WARM_UP, Times
from laconic.cli._group import laconic as cli

TINY = BenchSettings(dims=(900,), segments=(1, 6), nodes=(2, 3), repeats=2)
STEP_FIELDS = {"method", "d", "nodes", "segments", "phases", "ms", "ratio", "cpu_ms", "cpu_ratio"}
WHOLE_FIELDS = {
    "method",
    "d",
    "ms",
    "parts_ms",
    "pass_ms",
    "to_parts",
    "to_pass",
    "cpu_to_parts",
    "cpu_to_pass",
    "equal",
}


def check_steps(rows, phases):
    for row in rows:
        assert set(row) == STEP_FIELDS
        assert set(row["phases"]) == set(phases)
        assert row["ms"] > 0
        assert row["ratio"] > 0
        assert all(value >= 0 for value in row["phases"].values())
        assert row["segments"] > 1 or row["ratio"] == row["cpu_ratio"] == 1.0


def test_two_thirds_of_the_segments_share_the_vector_and_one_third_is_exempt():
    assert [s.numel for s in make_layout(900, 1).segments] == [900]
    layout = make_layout(10_000, 30)
    assert [s.rule for s in layout.segments] == 10 * ["compress", "bfloat16"] + 10 * ["compress"]
    assert {s.rule: s.numel for s in layout.segments} == {"compress": 500, "bfloat16": 256}
    assert len(make_layout(100_000, 640).segments) == 640


def test_only_rounds_after_the_first_ones_count():
    first = [9.0] * WARM_UP
    above = Times([*first, 1.0, 30.0, 2.0], [*first, 6.0, 6.0, 6.0])
    below = Times([*first, 1.0, 10.0, 1.0], [*first, 1.0, 2.0, 3.0])
    assert above.ratios(below) == (2.0, 3.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_parts_compute_what_the_method_says(method):
    feedback, layout, nodes = METHODS[method], make_layout(900, 6), 3
    generator = torch.Generator().manual_seed(1)
    rank = Rank(layout, feedback, nodes)
    senders = [feedback.sender(layout, node=node, seed=0) for node in range(nodes)]
    receiver = feedback.receiver(layout, nodes)
    for round in range(4):
        gradients = torch.randn(nodes, layout.d, generator=generator)
        messages = [sender.send(g) for sender, g in zip(senders, gradients, strict=True)]
        expected = receiver.receive(messages)
        frames = [laconic.pack(message, expect=format_of(feedback, layout, round)) for message in messages]
        rank.step(gradients[0], frames[1:])
        assert tuple(rank.phases[round]) == PHASES
        assert torch.equal(rank.estimate, expected)


def test_one_thread_is_given_back(monkeypatch):
    monkeypatch.setenv("LACONIC_THREADS", "2")
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    with one_thread():
        assert os.environ["LACONIC_THREADS"] == "1"
    assert os.environ["LACONIC_THREADS"] == "2"
    assert asked == [1, 3]


def test_every_method_number_of_ranks_and_layout_has_a_row():
    notes = []
    record = measure(TINY, notes.append)
    assert len(notes) == count_notes(TINY)
    assert set(record) == {"settings", "simulated", "whole"}
    found = [(row["method"], row["d"], row["nodes"], row["segments"]) for row in record["simulated"]]
    assert found == [(method, 900, n, s) for method in METHODS for n in (2, 3) for s in (1, 6)]
    check_steps(record["simulated"], PHASES)
    assert [(row["method"], row["d"]) for row in record["whole"]] == [(method, 900) for method in METHODS]
    for row in record["whole"]:
        assert set(row) == WHOLE_FIELDS
        assert row["equal"]
        assert all(value > 0 for key, value in row.items() if key not in ("method", "equal"))


def test_tables_fit_and_the_json_file_has_their_rows(tmp_path):
    out = tmp_path / "exchange.json"
    arguments = ["bench", "exchange", "--quick", "--dim", "10e3", "--segments", "6", "--nodes", "2"]
    result = CliRunner().invoke(cli, [*arguments, "--json", str(out)], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout
    for text in ("EF21, Top-1 % in bfloat16, d = 1,000", "EF14, Top-1 % in 1 bit", "Exchange.reduce_ of one"):
        assert text in result.stdout
    for name in (*PHASES, "segments", "ratio", "x.mul_(1)"):
        assert name in result.stdout
    record = json.loads(out.read_text())
    assert set(record) == {"machine", "settings", "simulated", "whole"}
    assert record["machine"]["threads"] == "1"
    assert record["settings"]["segments"] == [1, 6]
    assert len(record["simulated"]) == 2 * len(METHODS)


@pytest.mark.timeout(200)
def test_real_processes_report_the_phases_of_the_exchange():
    arguments = ["--processes", "2", "--dim", "900", "--segments", "6", "--repeats", "1", "--json", "-"]
    result = CliRunner().invoke(cli, ["bench", "exchange", *arguments])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert set(record) == {"machine", "settings", "processes"}
    found = [(row["method"], row["nodes"], row["segments"]) for row in record["processes"]]
    assert found == [(method, 2, s) for method in METHODS for s in (1, 6)]
    exchange = laconic.Exchange(make_layout(900, 1), METHODS["ef21"])
    check_steps(record["processes"], exchange.stats().seconds)
    exchange.close()


@pytest.mark.timeout(200)
def test_the_folder_runs_as_a_package_of_its_own(tmp_path):
    source = Path(laconic.__file__).parents[1]
    path = os.pathsep.join(map(str, (source, source / "laconic")))
    out = tmp_path / "other.json"
    arguments = ["--dims", "900", "--segments", "6", "--methods", "ef14", "--repeats", "1"]
    subprocess.run(
        [sys.executable, "-m", "bench.exchange", *arguments, "--json", str(out)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=150,
    )
    check_steps(json.loads(out.read_text())["simulated"], PHASES)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--dim", "ten"], "'ten' is not a list of integers"),
        (["--methods", "ef22"], "known are: ef21, ef14"),
        (["--nodes", "1"], "2 to 16 ranks"),
        (["--processes", "17"], "not in the range"),
        (["--segments", "0,1"], "at least one segment"),
        (["--dim", "100"], "cannot be cut into 640 segments"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, remedy):
    result = CliRunner().invoke(cli, ["bench", "exchange", *arguments])
    assert result.exit_code == 2
    assert remedy in " ".join(result.output.split())
