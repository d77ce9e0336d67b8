"""The examples of DDP and of an Exchange alone run under torchrun, and learn."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("name", "steps", "share"), [("ddp.py", 60, 13.0), ("exchange_loop.py", 150, 21.3)])
def test_the_example_learns(name, steps, share):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / name), "--steps", str(steps)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step")]
    assert len(losses) == 3
    assert losses[-1] < 0.3 * losses[0]
    # The first step's bfloat16 (DDP) or float32 message is part of it.
    (said,) = (line for line in done.stdout.splitlines() if "bf16" in line)
    assert float(said.split(", ")[-1].split(" %")[0]) < share + 3
