"""The example runs under torchrun, learns, and goes on from its checkpoint bit for bit."""

import subprocess
import sys
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "compressed_adamw.py"


def run(cwd, *arguments):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=cwd,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_learns_and_resumes(tmp_path):
    straight = run(tmp_path, "--steps", "60", "--checkpoint", "straight")
    losses = [float(line.split()[-1]) for line in straight.splitlines() if line.startswith("step")]
    assert len(losses) == 3
    assert losses[2] < 0.5 * losses[0]
    assert "% of a bf16 all-reduce" in straight
    run(tmp_path, "--steps", "40", "--checkpoint", "parts")
    resumed = run(tmp_path, "--steps", "60", "--checkpoint", "parts")
    assert straight.splitlines()[2] in resumed
    models = [
        torch.load(tmp_path / folder / f"rank{rank}.pt", weights_only=True)["model"]
        for folder in ("straight", "parts")
        for rank in (0, 1)
    ]
    for other in models[1:]:
        assert all(torch.equal(models[0][name], other[name]) for name in models[0])
