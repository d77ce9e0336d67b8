"""The example runs under torchrun, learns, and goes on from its checkpoint."""

from pathlib import Path

import torch
from processes import BARE, TORCHRUN, run_python

EXAMPLE = Path(__file__).parents[2] / "examples" / "compressed_adamw.py"


def run(cwd, *arguments):
    return run_python(*TORCHRUN, EXAMPLE, *arguments, cwd=cwd, env=BARE)


def test_the_example_learns_and_goes_on_from_its_checkpoint(tmp_path):
    output = run(tmp_path, "--steps", "40", "--checkpoint", "saved")
    output += run(tmp_path, "--steps", "60", "--checkpoint", "saved")
    lines = [line.split() for line in output.splitlines() if line.startswith("step")]
    assert [int(line[1]) for line in lines] == [20, 40, 60]
    assert float(lines[2][-1]) < float(lines[1][-1]) < float(lines[0][-1])
    assert output.count("% of a bf16 all-reduce") == 2
    one, two = (torch.load(tmp_path / "saved" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["step"] == 60
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    moments = [saved["optimizer"]["state"][0][f"rank{r}"]["exp_avg_sq"] for r, saved in enumerate((one, two))]
    assert not torch.equal(*moments)
