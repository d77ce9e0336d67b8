"""The demo: its text, its parts, and the command as a user calls it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from processes import run_python

from laconic.cli._group import laconic
from laconic.demo import METHODS, DemoSettings, Results, Run, make_rows, run_all, verdict
from laconic.demo._model import ByteTransformer
from laconic.demo._report import loss_to_reach, steps_to
from laconic.demo._text import even_starts, read_corpus, share, windows
from laconic.demo._worker import schedule
from laconic.network import Isolation

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
    assert sum(p.numel() for p in model.parameters()) == 663_552
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


NO_NETWORK = Isolation(None, "not asked for")
CURVE = {
    "bf16": [5.0, 3.0, 2.0],
    "recommended": [5.0, 4.0, 1.9],
    "ef14": [5.0, 3.5, 2.5],
    "ef21": [5.0, 4, 4],
}


def run_of(name, handed, seconds=0.05):
    losses = CURVE[name]
    return Run(
        name, losses[-1], [0, 5, 10], losses, [0, 5 * handed, 10 * handed], [0, 5 * seconds, 10 * seconds]
    )


def rows_of(fast=None, **runs):
    results = Results([run_of(name, *numbers) for name, numbers in runs.items()], fast or {})
    return make_rows([BY_NAME[name] for name in runs], results, 4)


def test_rows_follow_the_formulas():
    dense, sparse = rows_of(bf16=(800,), recommended=(8,))
    assert (dense.message, dense.link) == (800, 1200)
    assert (sparse.message, sparse.link) == (8, 24)
    assert dense.step == pytest.approx(
        {"100 Mbit/s": 0.05 + 8 * 1200 / 1e8, "1 Gbit/s": 0.05 + 8 * 1200 / 1e9}
    )
    # The dense method's loss at 60 % of its steps is 2.0; the other's curve falls from 4.0 to 1.9.
    assert dense.steps_to_loss == 10
    assert sparse.steps_to_loss == pytest.approx(5 + 5 * 2.0 / 2.1)
    assert sparse.seconds_to_loss["1 Gbit/s"] == sparse.steps_to_loss * sparse.step["1 Gbit/s"]


def test_measured_steps_are_taken_as_they_are():
    dense, sparse = rows_of({"bf16": 0.06, "recommended": 0.07}, bf16=(800, 0.2), recommended=(8, 0.08))
    assert dense.step == pytest.approx({"100 Mbit/s": 0.2, "1 Gbit/s": 0.06})
    assert sparse.step == pytest.approx({"100 Mbit/s": 0.08, "1 Gbit/s": 0.07})


def test_a_loss_that_is_not_reached_has_no_time():
    _, ef14 = rows_of(bf16=(800,), ef14=(8,))
    assert ef14.steps_to_loss is None
    assert ef14.seconds_to_loss == {}
    assert steps_to(run_of("bf16", 1), 6.0) == 0
    assert loss_to_reach([run_of("ef14", 1)]) is None
    assert steps_to(replace(run_of("bf16", 1), losses=[5.0, math.nan, math.nan]), 2.0) is None


def test_the_verdict_follows_the_numbers():
    numbers = {"bf16": (800, 0.2), "recommended": (8, 0.08), "ef21": (9, 0.08)}
    rows = rows_of({"bf16": 0.06, "recommended": 0.07, "ef21": 0.07}, **numbers)
    slow, fast, final, ef21 = verdict(rows, measured=True)
    assert slow.startswith(
        "At 100 Mbit/s CompressedAdamW 1-bit won: 0.8 s to the loss that bf16 has after 2.0 s"
    )
    assert "2.6 times as fast" in slow
    assert fast.startswith("At 1 Gbit/s bf16 won: 0.6 s")
    assert "CompressedAdamW 1-bit lost, 0.7 s. Do not compress" in fast
    assert "CompressedAdamW 1-bit -5.0 %, EF21 on gradients +100.0 %" in final
    assert "laconic compare" in ef21


def test_the_verdict_says_what_is_projected_and_what_was_not_reached():
    words = verdict(rows_of(bf16=(800,), ef14=(8,)), measured=False)
    assert words[0].startswith("At 100 Mbit/s (projected, not measured) bf16 won: nothing else reached")
    assert "Nothing to compare" in verdict(rows_of(bf16=(800,)), measured=True)[0]


def test_real_processes_train_and_count_their_bytes():
    seen = []
    settings = DemoSettings(steps=3, nodes=2, points=3)
    methods = [BY_NAME[name] for name in ("bf16", "ef21", "recommended", "recommended")]
    results = run_all(settings, methods, NO_NETWORK, lambda name, step, loss: seen.append((name, step)))
    assert seen == [(method.name, step) for method in methods for step in (1, 2, 3)]
    assert results.fast == {}
    dense, ef21, signs, again = results.runs
    assert dense.handed == [0, *(2 * 663_552 * step for step in (1, 2, 3))]
    # EF21's first message is the gradient itself.
    assert ef21.handed[1] > 4 * 663_552
    assert ef21.handed[3] - ef21.handed[2] < 0.02 * 2 * 663_552
    assert signs.handed[3] / 3 < 0.01 * 2 * 663_552
    for run in results.runs:
        assert math.isfinite(run.loss)
        assert run.losses[0] == dense.losses[0]
        assert run.loss < run.losses[0]
    assert again.losses == signs.losses


def test_the_command_writes_table_json_and_figure(tmp_path):
    methods = ("--methods", "bf16,recommended", "--out", "new[/x]/out")
    printed = run_python("-m", "laconic", "demo", "--steps", "2", "--nodes", "2", *methods, cwd=tmp_path)
    lines = printed.splitlines()
    # The table comes first: whatever goes before it is on standard error.
    assert next(line for line in lines if line.strip()).endswith("to loss to loss "), printed
    for label in ("bf16 all-reduce ", "CompressedAdamW 1-bit "):
        assert any(line.strip().startswith(label) for line in lines), printed
    assert "…" not in printed
    assert any(line.startswith("At 1 Gbit/s") for line in lines)
    assert max(map(len, lines)) <= 80
    out = tmp_path / "new[" / "x]" / "out"
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "results.json").read_text())
    assert record["settings"]["steps"] == 2
    assert [row["name"] for row in record["table"]] == ["bf16", "recommended"]
    assert record["table"][0]["message"] == 2 * 663_552
    assert record["methods"][1]["lr"] == BY_NAME["recommended"].lr


def test_the_command_refuses_unknown_methods(tmp_path):
    result = CliRunner().invoke(laconic, ["demo", "--methods", "efe21", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "did you mean 'ef21'" in result.stderr
    assert not (tmp_path / "out").exists()
