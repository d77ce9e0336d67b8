"""Interrupted runs: killed, stopped and resumed, against the same runs left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import laconic
from laconic.cli._group import laconic as group
from laconic.lab import CheckpointError, LogisticRegression, _checkpoint, compare, run
from laconic.lab.datasets import load_problem

METHODS = {
    "dcgd random": laconic.DCGD(laconic.RandK(2)),
    "ef14": laconic.EF14(laconic.TopK(2)),
    "ef21": laconic.EF21(laconic.TopK(1)),
    "ef21+": laconic.EF21Plus(laconic.TopK(1)),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(1), eta=0.3),
}
ARGUMENTS = {"multiples": (1, 64), "rounds": 24, "stop": 1e-2, "seeds": (0, 1)}


def problem(seed: int = 3) -> LogisticRegression:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((60, 8)) * (rng.random((60, 8)) < 0.6)
    return LogisticRegression.from_arrays(features, rng.integers(0, 2, 60), nodes=5)


def assert_same(first, second) -> None:
    assert first.base_stepsize == second.base_stepsize
    for a, b in ((first.grad_norm2, second.grad_norm2), (first.x, second.x), (first.ends, second.ends)):
        np.testing.assert_array_equal(a, b)
    for key, bits in first.sent.items():
        np.testing.assert_array_equal(bits, second.sent[key])


class StoppedError(Exception):
    pass


def stopping_at(rounds: int, error: type[BaseException]):
    """An ``on_round`` that raises after so many calls."""
    calls = []

    def on_round(t, norms):
        calls.append(t)
        if len(calls) == rounds:
            raise error

    return on_round, calls


@pytest.mark.parametrize(
    ("name", "exact", "error"),
    [
        *((name, False, KeyboardInterrupt) for name in METHODS),
        ("ef21", True, KeyboardInterrupt),
        ("ef21+", True, StoppedError),
    ],
)
def test_an_interrupted_run_ends_as_if_left_alone(name, exact, error, tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS", 0.0)
    path = tmp_path / "kept.npz"
    alone = run(problem(), METHODS[name], **ARGUMENTS, exact=exact)
    # Twice: once among the first rounds, once when runs may have left the batch or ended.
    for rounds in (7, 14):
        on_round, _ = stopping_at(rounds, error)
        with pytest.raises(error):
            run(problem(), METHODS[name], **ARGUMENTS, exact=exact, checkpoint=path, on_round=on_round)
    on_round, calls = stopping_at(10**9, error)
    resumed = run(problem(), METHODS[name], **ARGUMENTS, exact=exact, checkpoint=path, on_round=on_round)
    assert_same(resumed, alone)
    assert calls[0] > 0  # it did not start anew
    assert list(tmp_path.iterdir()) == [path]
    # A run that has ended is only read.
    on_round, calls = stopping_at(1, error)
    again = run(problem(), METHODS[name], **ARGUMENTS, exact=exact, checkpoint=path, on_round=on_round)
    assert_same(again, alone)
    assert not calls


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import ARGUMENTS, METHODS, problem
from laconic.lab import _checkpoint, run
_checkpoint.SECONDS = 0.0
def on_round(t, norms):
    print(t, flush=True)
run(problem(), METHODS["ef21+"], **{**ARGUMENTS, "stop": 0.0, "rounds": 10_000}, checkpoint=sys.argv[2],
    on_round=on_round)
"""


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "kept.npz"
    arguments = {**ARGUMENTS, "stop": 0.0, "rounds": 10_000}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 20:
                break
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    on_round, calls = stopping_at(30, StoppedError)
    with pytest.raises(StoppedError):
        run(problem(), METHODS["ef21+"], **arguments, checkpoint=path, on_round=on_round)
    # Every round was saved before it was reported, so at most the round under way is lost.
    assert calls[0] >= 20
    state = _checkpoint.np.load(path)
    norms = next(state[name] for name in state.files if state[name].shape == (4, 10_001))
    alone = run(problem(), METHODS["ef21+"], **{**arguments, "rounds": calls[0] + 5})
    np.testing.assert_array_equal(norms[:, : calls[0]], alone.grad_norm2.reshape(4, -1)[:, : calls[0]])


def small(path: Path, method=METHODS["ef21"], **changed):
    return run(changed.pop("on", problem()), method, **{**ARGUMENTS, **changed}, checkpoint=path)


OTHERS = {
    "method": {"method": laconic.EF21(laconic.TopK(2))},
    "multiples": {"multiples": (1, 8)},
    "rounds": {"rounds": 25},
    "stop": {"stop": 1e-3},
    "seeds": {"seeds": (0, 2)},
    "stepsize": {"stepsize": 0.1},
    "step": {"step": lambda x, direction: x - direction},
    "start": {"x0": torch.ones(8)},
    "starts": {"x0": torch.arange(16.0).view(2, 8)},
    "problem": {"on": problem(4), "stepsize": run(problem(), METHODS["ef21"], rounds=1).base_stepsize},
    "exact": {"exact": True},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_other_settings_is_refused(name, tmp_path):
    path = tmp_path / "kept.npz"
    small(path)
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=rf"other settings: {name.rstrip('s')}s? is .* delete .*kept.npz to start anew"
    ):
        small(path, **OTHERS[name])
    assert path.read_bytes() == before


def test_an_interrupted_run_of_several_starts_goes_on_from_them(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS", 0.0)
    path, starts = tmp_path / "kept.npz", torch.arange(16, dtype=torch.float64).view(2, 8) / 8
    alone = run(problem(), METHODS["ef21"], **ARGUMENTS, x0=starts)
    on_round, _ = stopping_at(9, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(problem(), METHODS["ef21"], **ARGUMENTS, x0=starts, checkpoint=path, on_round=on_round)
    with pytest.raises(CheckpointError, match="start is"):
        run(problem(), METHODS["ef21"], **ARGUMENTS, x0=starts.flip(0), checkpoint=path)
    assert_same(run(problem(), METHODS["ef21"], **ARGUMENTS, x0=starts, checkpoint=path), alone)


@pytest.mark.parametrize("damage", ["empty", "half", "a bit", "other file", "other archive"])
def test_a_damaged_checkpoint_is_refused(damage, tmp_path):
    path = tmp_path / "kept.npz"
    small(path)
    data = bytearray(path.read_bytes())
    if damage == "other archive":
        np.savez(path, a=np.ones(3))
    else:
        data[len(data) // 3] ^= 4
        broken = {"empty": b"", "half": data[: len(data) // 2], "a bit": data, "other file": b"hello"}
        path.write_bytes(broken[damage])
    with pytest.raises(CheckpointError, match=r"no whole checkpoint .*; delete .*kept.npz to start anew"):
        small(path)


def test_a_failed_saving_leaves_the_old_state(tmp_path, monkeypatch):
    kept = _checkpoint.Checkpoint(tmp_path / "kept.npz", {"a": 1})
    kept.save({"x": torch.ones(3), "deep": [{"y": np.arange(2)}, None, "z"]})

    def full(file, **arrays):
        file.write(b"some")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        kept.save({"x": torch.zeros(3)})
    state = kept.load()
    assert state is not None
    torch.testing.assert_close(state["x"], torch.ones(3))
    np.testing.assert_array_equal(state["deep"][0]["y"], [0, 1])
    assert state["deep"][1:] == [None, "z"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]


def test_no_more_than_ten_seconds_lie_between_savings(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_checkpoint.time, "monotonic", lambda: now[0])
    saved = []
    save = _checkpoint.Checkpoint.save
    monkeypatch.setattr(
        _checkpoint.Checkpoint, "save", lambda self, state: (saved.append(now[0]), save(self, state))
    )

    def on_round(t, norms):
        now[0] += 1.5  # a round takes 1.5 seconds

    run(problem(), METHODS["ef21"], rounds=40, stop=0.0, checkpoint=tmp_path / "kept.npz", on_round=on_round)
    gaps = np.diff([0.0, *saved])
    assert len(saved) > 5
    assert gaps.max() <= 10
    assert gaps[:-1].min() >= _checkpoint.SECONDS


def test_compare_keeps_each_method_and_reads_what_has_ended(tmp_path):
    names, compressor = ["gd", "ef21", "ef21+"], laconic.TopK(1)
    arguments = {"multiples": (1, 4), "rounds": 50}
    alone = compare(problem(), names, compressor, **arguments)
    seen = []

    def on_method(name, t, smallest):
        seen.append(name)
        if name == "ef21+" and t == 10:
            raise KeyboardInterrupt

    folder = tmp_path / "new" / "kept"
    with pytest.raises(KeyboardInterrupt):
        compare(problem(), names, compressor, **arguments, on_round=on_method, checkpoint=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["ef21.npz", "gd.npz"]
    seen.clear()
    both = compare(
        problem(),
        names,
        compressor,
        **arguments,
        on_round=lambda name, t, s: seen.append(name),
        checkpoint=folder,
    )
    assert set(seen) == {"ef21+"}
    for name in names:
        assert_same(both.results[name], alone.results[name])


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background may ignore it
from laconic.lab import _checkpoint
_checkpoint.SECONDS = 0.1
from laconic.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_the_command_is_interrupted_and_goes_on(tmp_path, monkeypatch):
    """Ctrl-C: how to go on, and exit code 130; then the same numbers as without."""
    monkeypatch.chdir(tmp_path)
    small = ["compare", "--nodes", "4", "--multiples", "1,16", "--methods", "ef21", "--rounds"]
    called = [sys.executable, "-c", INTERRUPTED, *small, "30000", "--stop", "1e-30", "--out", "broken off"]
    kept = tmp_path / "broken off" / "checkpoints" / "ef21.npz"
    with subprocess.Popen(called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while not kept.exists() and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate()
    assert (child.returncode, errors) == (130, "")
    assert "interrupted; to go on: laconic compare --nodes 4" in output
    assert "--out 'broken off' --resume" in output

    refused = CliRunner().invoke(group, [*small, "400", "--stop", "1e-30", "--out", "broken off", "--resume"])
    assert refused.exit_code == 2
    assert "other settings: rounds is 400 here and 30000 there" in refused.output
    # Put a state of the same settings in its place: a run that was interrupted at round 200.
    kept.unlink()

    def interrupt(name, t, smallest):
        if t == 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint, "SECONDS", 0.0)
    settings = {"multiples": (1.0, 16.0), "rounds": 400, "stop": 1e-30}
    loaded = load_problem(None, "logistic", 4, 0.1).problem
    with pytest.raises(KeyboardInterrupt):
        compare(loaded, ["ef21"], laconic.TopK(1), **settings, on_round=interrupt, checkpoint=kept.parent)
    assert kept.exists()
    for out, resume in (("alone", []), ("broken off", ["--resume"])):
        done = CliRunner().invoke(group, [*small, "400", "--stop", "1e-30", "--out", out, *resume])
        assert done.exit_code == 0, done.output
    results = [(tmp_path / out / "results.json").read_text() for out in ("alone", "broken off")]
    assert results[0] == results[1]
    assert not kept.parent.exists()
