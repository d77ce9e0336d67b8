"""The demo: its text, its parts, and the command as a user calls it."""

import json
import math
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from laconic.cli._group import laconic
from laconic.demo import LINKS, METHODS, DemoSettings, Run, make_row, run_all, verdict
from laconic.demo._model import ByteTransformer
from laconic.demo._text import even_starts, read_corpus, share, windows
from laconic.demo._worker import schedule

BY_NAME = {method.name: method for method in METHODS}


def test_text_is_split_by_file_and_is_the_same_each_time():
    train, held = read_corpus()
    again = read_corpus()
    assert torch.equal(train, again[0])
    assert torch.equal(held, again[1])
    assert train.numel() > 10 * held.numel() > 10 * 50_000


def test_every_twentieth_file_is_held_back(tmp_path):
    for number in range(40):
        (tmp_path / f"f{number:02}.py").write_bytes(bytes([number]))
    train, held = read_corpus(tmp_path)
    assert held.tolist() == [19, 39]
    assert sorted(train.tolist() + held.tolist()) == list(range(40))
    with pytest.raises(FileNotFoundError, match="0 Python files"):
        read_corpus(tmp_path / "nothing")


def test_shares_do_not_overlap_and_windows_are_shifted_by_one():
    text = torch.arange(103, dtype=torch.uint8)
    shares = [share(text, rank, 4) for rank in range(4)]
    assert torch.cat(shares).tolist() == list(range(100))
    x, y = windows(text, torch.tensor([0, 50]), 5)
    assert x.tolist() == [[0, 1, 2, 3, 4], [50, 51, 52, 53, 54]]
    assert torch.equal(y, x + 1)
    starts = even_starts(text, 7, 5)
    assert len(starts) == 7
    windows(text, starts, 5)


def test_the_model_has_matrices_only_and_cannot_see_ahead():
    model = ByteTransformer()
    assert sum(p.numel() for p in model.parameters()) == 387_072
    assert {p.dim() for p in model.parameters()} == {2}
    text = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
    for block in model.blocks:
        torch.nn.init.normal_(block.out.weight, std=0.1)
    changed = text.clone()
    changed[:, 10:] = 0
    with torch.no_grad():
        first, second = model(text), model(changed)
    torch.testing.assert_close(first[:, :10], second[:, :10])
    assert (first - second)[:, 10:].abs().max() > 0.1


def test_the_schedule_warms_up_and_falls_to_a_tenth():
    values = [schedule(step, 100) for step in range(1, 101)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5:] == sorted(values[5:], reverse=True)
    assert values[-1] == pytest.approx(0.1)
    assert schedule(1, 1) == 1.0


def run_of(name, loss, handed, seconds=0.05):
    return Run(name, loss, [0, 10], [5.0, loss], [0, 10 * handed], [0.0, 10 * seconds])


def test_rows_follow_the_formulas():
    dense = make_row(BY_NAME["bf16"], run_of("bf16", 2.0, 800), 4)
    sparse = make_row(BY_NAME["compressed"], run_of("compressed", 2.1, 8), 4)
    assert (dense.message, dense.link) == (800, 1200)
    assert (sparse.message, sparse.link) == (8, 24)
    assert dense.projected["100 Mbit/s"] == pytest.approx(0.05 + 8 * 1200 / 1e8)
    assert set(dense.projected) == set(LINKS)


def rows_of(**runs):
    return [make_row(BY_NAME[name], run_of(name, *numbers), 4) for name, numbers in runs.items()]


def test_the_verdict_follows_the_numbers():
    rows = rows_of(bf16=(2.0, 1_000_000), compressed=(2.1, 10_000), ef21=(3.0, 10_000))
    words = verdict(rows)
    assert "CompressedAdamW bf16 won" in words
    assert "5.0 % above" in words
    assert "messages of 1.0 % of its bytes (2.0 % through the link)" in words
    assert "EF21 at 1 % of small, noisy batches ends 50 % above" in words
    assert "laconic compare" in words
    below = verdict(rows_of(bf16=(2.0, 1_000_000), compressed=(2.1, 10_000), ef21=(1.9, 10_000)))
    assert "EF21 on gradients won: its loss is 5.0 % below" in below
    assert "noisy" not in below
    slow = verdict(rows_of(bf16=(2.0, 1000, 0.01), compressed=(2.1, 10, 0.02)))
    assert "slower (2.0 times the time)" in slow
    assert "Nothing to compare" in verdict(rows_of(bf16=(2.0, 1000)))


def test_real_processes_train_and_count_their_bytes():
    seen = []
    settings = DemoSettings(steps=3, nodes=2, points=3)
    methods = [BY_NAME[name] for name in ("bf16", "ef21", "compressed-1bit", "compressed-1bit")]
    runs = run_all(settings, methods, lambda name, step, loss: seen.append((name, step)))
    assert seen == [(method.name, step) for method in methods for step in (1, 2, 3)]
    dense, ef21, signs, again = runs
    assert dense.handed == [0, *(2 * 387_072 * step for step in (1, 2, 3))]
    # EF21's first message is the gradient itself.
    assert ef21.handed[1] > 4 * 387_072
    assert ef21.handed[3] - ef21.handed[2] < 0.02 * 2 * 387_072
    assert signs.handed[3] / 3 < 0.01 * 2 * 387_072
    for run in runs:
        assert math.isfinite(run.loss)
        assert run.losses[0] == dense.losses[0]
        assert run.loss < run.losses[0]
    assert again.losses == signs.losses


def test_the_command_writes_table_json_and_figure(tmp_path):
    arguments = ["--steps", "2", "--nodes", "2", "--methods", "bf16,dcgd,compressed"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from laconic.cli import main; main()",
            "demo",
            *arguments,
            "--out",
            "new/out",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for label in ("bf16 all-reduce ", "Top-1 %, no feedback ", "CompressedAdamW bf16 "):
        assert any(line.strip().startswith(label) for line in lines), done.stdout
    assert "…" not in done.stdout
    assert "projected, not measured" in done.stdout
    assert "won:" in done.stdout
    assert max(map(len, lines)) <= 80
    out = tmp_path / "new" / "out"
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "results.json").read_text())
    assert record["settings"]["steps"] == 2
    assert [row["name"] for row in record["table"]] == ["bf16", "dcgd", "compressed"]
    assert record["table"][0]["message"] == 2 * 387_072
    assert record["methods"][2]["lr"] == BY_NAME["compressed"].lr


def test_the_command_refuses_unknown_methods(tmp_path):
    result = CliRunner().invoke(laconic, ["demo", "--methods", "efe21", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "did you mean 'ef21'" in result.stderr
    assert not (tmp_path / "out").exists()
