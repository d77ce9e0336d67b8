"""The examples of DDP and of an Exchange alone run under torchrun, and learn."""

from pathlib import Path

import pytest
from processes import BARE, TORCHRUN, run_python

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("name", "steps", "share"), [("ddp.py", 60, 13.0), ("exchange_loop.py", 150, 21.3)])
def test_the_example_learns(name, steps, share):
    printed = run_python(*TORCHRUN, EXAMPLES / name, "--steps", str(steps), env=BARE, timeout=120)
    losses = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("step")]
    assert len(losses) == 3
    assert losses[-1] < 0.3 * losses[0]
    # The first step's bfloat16 (DDP) or float32 message is part of it.
    (said,) = (line for line in printed.splitlines() if "bf16" in line)
    assert float(said.split(", ")[-1].split(" %")[0]) < share + 3
