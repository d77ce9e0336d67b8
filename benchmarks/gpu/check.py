"""Checks and measures the library on a GPU: six parts, each in a process and with a time limit of its own.

    python benchmarks/gpu/check.py [--only 2,5] [--quick] [--rehearse] [--out DIR]

Results are written as they come: DIR/part1.jsonl, ..., and after each part DIR/gpu-check.json with all.
``--rehearse`` runs every part without a GPU, on the CPU with Triton's interpreter, at sizes that say nothing.
Nothing is installed and nothing is fetched.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = {
    1: "kernels against their definitions",
    2: "race hunt",
    3: "times of kernels and of an exchange",
    4: "hook and optimiser in processes",
    5: "CompressedAdamW.step against fused AdamW",
    6: "training run",
}
LIMITS = {
    "full": {1: 110, 2: 40, 3: 80, 4: 60, 5: 50, 6: 140},
    "quick": {1: 70, 2: 30, 3: 40, 4: 45, 5: 30, 6: 24},
    "rehearse": dict.fromkeys(PARTS, 300),
}
"""Seconds a part may take; in sum 8 minutes, and less than 4."""


def main(arguments=None):
    """Run the parts; 0 where all have passed within their limits."""
    options = _options(arguments)
    mode = "rehearse" if options.rehearse else "quick" if options.quick else "full"
    limits = LIMITS[mode] | {part: options.limit for part in PARTS if options.limit is not None}
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"mode": mode, "machine": machine(), "parts": {}}
    for part in options.only:
        print(f"part {part}: {PARTS[part]}, at most {limits[part]:g} s", flush=True)
        record["parts"][part] = run_part(part, mode, limits[part], options.out)
        (options.out / "gpu-check.json").write_text(json.dumps(record, indent=2) + "\n")
        _show(part, record["parts"][part])
    return 0 if all(found["passed"] for found in record["parts"].values()) else 1


def run_part(part, mode, limit, out):
    """Run a part in a process group of its own, which is killed at the limit; its rows and how it ended."""
    rows, log = out / f"part{part}.jsonl", out / f"part{part}.log"
    rows.write_text("")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    env.pop("TRITON_INTERPRET", None)
    if mode == "rehearse":
        env["TRITON_INTERPRET"] = "1"
    began = time.monotonic()
    with log.open("w") as stream:
        command = [sys.executable, str(HERE / "part.py"), str(part), mode, str(rows), str(began + limit)]
        child = subprocess.Popen(command, stdout=stream, stderr=stream, env=env, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    found = [json.loads(line) for line in rows.read_text().splitlines() if line.endswith("}")]
    return {
        "name": PARTS[part],
        "seconds": round(time.monotonic() - began, 1),
        "ended": "at its limit" if code is None else "well" if code == 0 else f"with exit code {code}",
        "passed": code == 0 and bool(found) and all(row.get("ok", True) for row in found),
        "rows": found,
        "log": log.read_text()[-2000:] if code else "",
    }


def machine():
    """What ran: versions, and the GPU where there is one."""
    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__, "cpus": os.cpu_count()}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def _show(part, found):
    verdict = "passed" if found["passed"] else "FAILED"
    print(f"part {part}: {verdict}, ended {found['ended']}, {found['seconds']} s")
    for table in _tables(found["rows"]):
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            print(
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )
    if found["log"]:
        print(found["log"])
    sys.stdout.flush()


def _tables(rows):
    by_columns = {}
    for row in rows:
        by_columns.setdefault(tuple(row), []).append([_cell(value) for value in row.values()])
    return [[list(columns), *cells] for columns, cells in by_columns.items()]


def _cell(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="1,2,3,4,5,6", help="numbers of parts, such as 2,5")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="less of everything, in under 4 minutes")
    mode.add_argument("--rehearse", action="store_true", help="without a GPU, at tiny sizes")
    parser.add_argument("--limit", type=float, help="seconds for each part, in the place of its own limit")
    parser.add_argument("--out", type=Path, default=Path("gpu-check-out"), help="a folder for the results")
    options = parser.parse_args(arguments)
    try:
        options.only = [int(part) for part in options.only.split(",")]
        if not set(options.only) <= set(PARTS):
            raise ValueError
    except ValueError:
        parser.error(f"--only takes numbers from 1 to {len(PARTS)} with commas between")
    return options


if __name__ == "__main__":
    sys.exit(main())
