"""One part of the check in its process: ``part.py NUMBER MODE ROWS DEADLINE``, as check.py starts it."""

import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MODULES = {
    1: "part1_kernels",
    2: "part2_races",
    3: "part3_times",
    4: "part4_processes",
    5: "part5_optimizer",
    6: "part6_training",
}


@dataclass(frozen=True)
class Settings:
    """What a part is told.

    Args:
        mode: "full", "quick" or "rehearse".
        rows: a file that gets a line of JSON for each result.
        deadline: of ``time.monotonic()``, when the part is ended.
    """

    mode: str
    rows: Path
    deadline: float

    def report(self, **row):
        """Write a result; ``ok`` says whether it is as it must be, where that can be said."""
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    @property
    def left(self):
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def choose(self, full, quick, rehearse):
        """The value for the mode."""
        return {"full": full, "quick": quick, "rehearse": rehearse}[self.mode]

    def device(self, stand_in=True):
        """The GPU; in a rehearsal its stand-in, or the CPU."""
        import torch

        if self.mode != "rehearse":
            if not torch.cuda.is_available():
                raise SystemExit("there is no GPU that PyTorch can use; --rehearse runs without one")
            torch.cuda.set_device(0)
            return torch.device("cuda", 0)
        if not stand_in:
            return torch.device("cpu")
        from stand_in import install

        return install()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    number, mode, rows, deadline = sys.argv[1:]
    part = importlib.import_module(MODULES[int(number)])
    part.main(Settings(mode, Path(rows), float(deadline)))
