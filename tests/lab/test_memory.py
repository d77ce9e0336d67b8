"""How much memory a run takes beside its data."""

from pathlib import Path

import pytest
from processes import run_python

SCRIPT = """
import numpy as np
import laconic
from laconic.lab import LogisticRegression, run

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def problem(rows, d, nodes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, d)) * (rng.random((rows, d)) < 0.05)
    return LogisticRegression.from_arrays(X, rng.integers(0, 2, rows), nodes=nodes)

method = laconic.EF21Plus(laconic.TopK(1))
multiples = [2.0**i for i in range(12)]
run(problem(60, 7, 3), method, multiples, 3, stepsize=0.1)  # everything is imported and compiled
large = problem(3000, 300, 1000)
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
run(large, method, multiples, 4, stepsize=0.1, stop=0.0)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_a_thousand_nodes_fit(tmp_path):
    """EF21+ on 1,000 nodes at twelve multiples, d = 300: the shape of w8a, with fewer rows and rounds."""
    assert int(run_python("-c", SCRIPT, cwd=tmp_path, timeout=120)) < 600e6
