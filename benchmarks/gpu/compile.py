"""Compiles all kernels ahead of time, without a GPU: registers, shared memory and spills of each.

    python benchmarks/gpu/compile.py [sm_80 sm_90] [--out DIR]

Triton brings ptxas, which does the same work as on a machine with a GPU. DIR keeps Triton's cache, of use
only where architecture, Triton, PyTorch and sources are the same.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
AOT = HERE.parents[1] / "tests" / "kernels" / "gpu"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def usage(cubin):
    """Registers a thread, bytes of stack, static shared memory, local memory, by cuobjdump; or None."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=False
        )
    found = _USAGE.search(done.stdout)
    return None if found is None else tuple(map(int, found.groups()))


def compiled(targets):
    """A row for each kernel and target."""
    sys.path.insert(0, str(AOT))
    import aot

    jobs = aot.recorded()
    for target in targets:
        for name, kernel, types, constants, warps in jobs:
            made = aot.compiled(kernel, types, constants, warps, aot.TARGETS[target])
            registers, stack, _, local = usage(made.asm["cubin"]) or (None, None, None, None)
            yield {
                "kernel": name,
                "target": target,
                "warps": warps,
                "registers": registers,
                "shared": made.metadata.shared,
                "stack": stack,
                "local": local,
            }


def main(arguments=None):
    """Print the rows, and write them where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", default=["sm_80", "sm_90"])
    parser.add_argument("--out", type=Path, help="a folder for the rows and Triton's cache")
    options = parser.parse_args(arguments)
    if options.out is not None:
        os.environ["TRITON_CACHE_DIR"] = str(options.out / "cache")
        options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print(f"{'kernel':32} {'target':7} warps registers shared stack local")
    for row in compiled(options.targets):
        rows.append(row)
        numbers = (row[name] for name in ("warps", "registers", "shared", "stack", "local"))
        print(
            f"{row['kernel']:32} {row['target']:7} " + " ".join(f"{number!s:>6}" for number in numbers),
            flush=True,
        )
    if options.out is not None:
        (options.out / "kernels.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
