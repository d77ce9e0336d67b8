"""Writes the golden hashes that are not stored yet: ``python tests/golden/write_hashes.py``.

Stored ones stay as they are, save those whose names match ``--overwrite PATTERN``: these are computed anew,
and removed where there is no such case any more.
"""

import argparse
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import golden_ranks
import torch
from golden import differences, store, stored
from golden_cases import CASES, gradients


def main() -> None:
    """Write what is missing and what is to be overwritten, and say what changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overwrite", action="append", default=[], metavar="PATTERN")
    patterns = parser.parse_args().overwrite
    torch.set_num_threads(1)

    old = stored()
    names = ["given gradients", *CASES, *(f"2 ranks: {name}" for name in golden_ranks.NAMES)]
    anew = [n for n in names if n not in old or any(fnmatchcase(n, p) for p in patterns)]
    found = {name: CASES[name].run() for name in anew if name in CASES}
    if "given gradients" in anew:
        found["given gradients"] = gradients()
    if any(name.startswith("2 ranks: ") for name in anew):
        with tempfile.TemporaryDirectory() as folder:
            ranks = golden_ranks.hashes(Path(folder))
        found |= {name: ranks[name] for name in anew if name in ranks}

    gone = [n for n in old if n not in names]
    kept = [n for n in gone if not any(fnmatchcase(n, p) for p in patterns)]
    store({n: found[n] if n in found else old[n] for n in [*names, *kept]})
    for name in found:
        for line in differences(old[name], found[name]) if name in old else ["new"]:
            print(f"{name}: {line}")
    for name in gone:
        print(f"{name}: {'no such case; --overwrite removes it' if name in kept else 'removed'}")


if __name__ == "__main__":
    main()
