"""The integrations' examples with the real packages under torchrun: they learn, and resume bit for bit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LINE = re.compile(r"rank (\d): loss ([\d.]+), ([\d.]+) % of a bf16 all-reduce, weights (\w{8})")


def run(name, *arguments):
    """Loss, share of bytes and checksum of the weights, by rank."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
            "GLOO_SOCKET_IFNAME": "lo",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(EXAMPLES.parent / "src"),
        },
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found = {
        int(rank): (float(loss), float(share), crc) for rank, loss, share, crc in LINE.findall(done.stdout)
    }
    assert found.keys() == {0, 1}, done.stdout
    assert found[0][2] == found[1][2], "the replicas differ"
    assert all(0.0 < share < 25.0 for _, share, _ in found.values()), found
    return found[0]


@pytest.mark.parametrize("way", [[], ["--optimizer"]], ids=["hook", "optimizer"])
def test_lightning(way, tmp_path):
    straight = run("lightning_trainer.py", "--epochs", 4, "--folder", tmp_path / "straight", *way)
    first = run("lightning_trainer.py", "--epochs", 2, "--folder", tmp_path / "cut", *way)
    resumed = run("lightning_trainer.py", "--epochs", 4, "--folder", tmp_path / "cut", *way)
    assert straight[0] < first[0]
    assert resumed[2] == straight[2]


@pytest.mark.parametrize("way", [[], ["--optimizer"]], ids=["hook", "optimizer"])
def test_accelerate(way, tmp_path):
    straight = run("accelerate_loop.py", "--steps", 40, "--folder", tmp_path / "straight", *way)
    first = run("accelerate_loop.py", "--steps", 20, "--folder", tmp_path / "cut", *way)
    resumed = run("accelerate_loop.py", "--steps", 40, "--folder", tmp_path / "cut", *way)
    assert straight[0] < first[0]
    assert resumed[2] == straight[2]


@pytest.mark.parametrize("way", [[], ["--optimizer"]], ids=["hook", "optimizer"])
def test_huggingface(way, tmp_path):
    straight = run("huggingface_trainer.py", "--steps", 20, "--folder", tmp_path, *way)
    resumed = run(
        "huggingface_trainer.py", "--steps", 20, "--folder", tmp_path / "cut", "--resume",
        tmp_path / "checkpoint-10", *way,
    )  # fmt: skip
    assert resumed[2] == straight[2]
