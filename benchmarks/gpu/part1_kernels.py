"""Part 1: the tests of all kernels for GPUs, on the GPU: equal to the definitions bit for bit."""

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).resolve().parents[2] / "tests" / "kernels" / "gpu" / "interpreted"


def main(settings):
    """One row a file of tests; all files at once, each in a process."""
    files = sorted(TESTS.glob("test_*.py"))
    if settings.mode == "rehearse":
        files = [file for file in files if file.stem in ("test_gpu_scatter", "test_gpu_receive")]
    else:
        settings.device()
    env = os.environ | {"LACONIC_GPU_TESTS": "standin" if settings.mode == "rehearse" else "1"}
    running = {}
    for file in files:
        found = settings.rows.with_name(f"{file.stem}.xml")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default"),
            *(f"--junitxml={found}", str(file)),
        ]
        running[file.stem] = subprocess.Popen(command, env=env), found
    while running:
        ended = [name for name, (child, _) in running.items() if child.poll() is not None]
        for name in ended:
            child, found = running.pop(name)
            settings.report(file=name, **_counts(found), ok=child.returncode == 0)
        time.sleep(0.2)


def _counts(found):
    suite = next(ElementTree.parse(found).iter("testsuite")).attrib if found.exists() else {}
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return {"tests": int(suite.get("tests", 0)), "failed": failed, "skipped": int(suite.get("skipped", 0))}
