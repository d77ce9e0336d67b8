"""``python -m laconic.network``: builds a network and runs a job's ranks in it."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from laconic.network._network import DEVICE, Link, Network, die_with_parent


def run(job: dict[str, Any]) -> int:
    """Build the network and run the ranks in it, until all have ended or one has failed; the exit status."""
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": DEVICE if job["link"] else "lo",
        "OMP_NUM_THREADS": str(job["threads"]),
    }
    with ExitStack() as stack:
        network = stack.enter_context(Network(job["nodes"], Link(**job["link"]))) if job["link"] else None
        ranks = []
        for rank in range(job["nodes"]):
            log = stack.enter_context((Path(job["folder"]) / f"rank{rank}.log").open("w"))
            prefix = network.command(rank) if network else []
            command = [*prefix, sys.executable, "-m", job["module"], str(rank), json.dumps(job)]
            ranks.append(stack.enter_context(subprocess.Popen(command, stderr=log, env=environment)))
        try:
            return _wait_for_all(ranks)
        finally:
            for each in ranks:
                each.kill()


def _wait_for_all(ranks: list[subprocess.Popen[bytes]]) -> int:
    waiting = list(ranks)
    while waiting:
        for each in list(waiting):
            try:
                status = each.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            if status:
                return status
            waiting.remove(each)
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(run(json.loads(sys.argv[1])))
