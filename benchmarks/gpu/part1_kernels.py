"""Part 1: the tests of all kernels for GPUs, on the GPU: equal to the definitions bit for bit."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).resolve().parents[2] / "tests" / "kernels" / "gpu" / "interpreted"


def main(settings):
    """One row a file of tests."""
    files = sorted(TESTS.glob("test_*.py"))
    if settings.mode == "rehearse":
        files = [file for file in files if file.stem in ("test_gpu_scatter", "test_gpu_receive")]
    env = dict(os.environ)
    env["LACONIC_GPU_TESTS"] = "standin" if settings.mode == "rehearse" else "1"
    if settings.mode != "rehearse":
        settings.device()
    together = (
        ["-n", str(min(8, os.cpu_count() or 1))] if settings.mode != "rehearse" and find_spec("xdist") else []
    )
    for file in files:
        found = settings.rows.with_name(f"{file.stem}.xml")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *together),
            *(f"--junitxml={found}", str(file)),
        ]
        code = subprocess.run(command, env=env, check=False).returncode
        suite = next(ElementTree.parse(found).iter("testsuite")).attrib if found.exists() else {}
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        settings.report(
            file=file.stem,
            tests=int(suite.get("tests", 0)),
            failed=failed,
            skipped=int(suite.get("skipped", 0)),
            ok=code == 0,
        )
