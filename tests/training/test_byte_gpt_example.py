"""The byte model's example learns with both optimisers, and goes on from its checkpoint bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "byte_gpt.py"
SMALL = [
    "--width",
    "32",
    "--layers",
    "1",
    "--context",
    "32",
    "--batch",
    "4",
    "--lr",
    "3e-3",
    "--log-every",
    "10",
]


def run(cwd, *arguments):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLE), "text", *SMALL, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=cwd,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    return [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step")]


@pytest.mark.parametrize("optimizer", ["adamw", "local"])
def test_it_learns_and_resumes(optimizer, tmp_path):
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    choice = ["--optimizer", optimizer, "--every", "4"]
    straight = run(tmp_path, *choice, "--steps", "40", "--checkpoint", "straight")
    # 22 lies between two exchanges of local steps.
    parts = run(tmp_path, *choice, "--steps", "22", "--checkpoint", "parts")
    parts += run(tmp_path, *choice, "--steps", "40", "--checkpoint", "parts")
    assert straight == parts
    assert straight[-1] < straight[0] - 0.2
    files = [
        torch.load(tmp_path / folder / f"rank{rank}.pt", weights_only=True)["model"]
        for folder in ("straight", "parts")
        for rank in (0, 1)
    ]
    assert all(torch.equal(value, other[name]) for other in files[1:] for name, value in files[0].items())
