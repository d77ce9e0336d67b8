"""The byte model's example learns with both optimisers, and goes on from its checkpoint bit for bit."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from processes import BARE, TORCHRUN, run_python, run_ranks

EXAMPLE = Path(__file__).parents[2] / "examples" / "byte_gpt.py"
SMALL = ["--width", "32", "--layers", "1", "--context", "32", "--batch", "4", "--lr", "3e-3"]
SMALL += ["--log-every", "10", "--every", "4", "--optimizer"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    return path


def losses(output):
    return [float(line.split()[-1]) for line in output.splitlines() if line.startswith("step")]


def _runs(_rank, commands):
    """What the example prints, run once for each list of arguments on the ranks that are there."""
    printed = []
    for arguments in commands:
        output = io.StringIO()
        with (
            mock.patch.object(sys, "argv", [str(EXAMPLE), *arguments]),
            mock.patch("torch.distributed.init_process_group"),
            mock.patch("torch.distributed.destroy_process_group"),
            contextlib.redirect_stdout(output),
        ):
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        printed.append(output.getvalue())
    return printed


@pytest.mark.parametrize("optimizer", ["adamw", "local"])
def test_it_learns_and_resumes(optimizer, text, tmp_path):
    folders = [str(tmp_path / name) for name in ("straight", "parts")]
    # 22 lies between two exchanges of local steps.
    commands = [
        [str(text), *SMALL, optimizer, "--steps", str(steps), "--checkpoint", folder]
        for steps, folder in ((40, folders[0]), (22, folders[1]), (40, folders[1]))
    ]
    printed, silent = run_ranks(_runs, 2, tmp_path, commands, timeout=200)
    straight, first, second = map(losses, printed)
    assert not any(silent)
    assert straight == first + second
    assert straight[-1] < straight[0] - 0.2
    files = [
        torch.load(Path(folder) / f"rank{rank}.pt", weights_only=True)["model"]
        for folder in folders
        for rank in (0, 1)
    ]
    assert all(torch.equal(value, other[name]) for other in files[1:] for name, value in files[0].items())


def test_it_runs_under_torchrun(text, tmp_path):
    arguments = (EXAMPLE, text, *SMALL, "adamw", "--steps", "20")
    printed = run_python(*TORCHRUN, *arguments, cwd=tmp_path, env=BARE, timeout=400)
    assert len(losses(printed)) == 2
    assert "bytes sent a step" in printed
