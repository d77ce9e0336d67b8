"""Ranks as processes on an emulated network, or over the loopback device."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from laconic.network._network import Isolation, Link, die_with_parent

Report = dict[str, Any]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Ranks:
    """Processes that form one Gloo group.

    Args:
        module: run with ``python -m``; it calls :func:`enter_rank` first.
        settings: for the module, as JSON holds them.
        nodes: how many.
        threads: of each.
    """

    module: str
    settings: Report
    nodes: int
    threads: int = 1

    def run(self, link: Link, found: Isolation, take: Callable[[Report], None]) -> None:
        """Run them until all have ended, or one has failed.

        Args:
            link: of each rank.
            found: namespaces; without them the ranks talk over the loopback device.
            take: called with each report that a rank sends.

        Raises:
            RuntimeError: where a rank failed, with what it wrote.
        """
        with tempfile.TemporaryDirectory() as folder:
            job = {
                "link": asdict(link) if found.prefix else None,
                "folder": folder,
                "module": self.module,
                "nodes": self.nodes,
                "threads": self.threads,
                "settings": self.settings,
            }
            command = [*(found.prefix or ()), sys.executable, "-m", "laconic.network", json.dumps(job)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith("{"):  # whatever else a rank's libraries print
                        take(json.loads(line))
                process.wait()
            finally:
                process.kill()
                process.stdout.close()
                process.wait()
            if process.returncode:
                logs = sorted(Path(folder).glob("*.log"))
                wrote = [f"{path.stem}: {path.read_text()[-2000:]}" for path in logs]
                raise RuntimeError("a rank failed\n" + "\n".join(wrote))


def enter_rank() -> tuple[Report, Callable[[Report], None]]:
    """Meet the other ranks in ``torch.distributed``'s default group.

    Returns:
        The module's settings, and a function that sends a report: of more than 4 kB from one rank at a time.
    """
    import torch.distributed as dist

    die_with_parent()
    rank, job = int(sys.argv[1]), json.loads(sys.argv[2])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{Path(job['folder']) / 'meeting'}",
        rank=rank,
        world_size=job["nodes"],
        timeout=timedelta(seconds=TIMEOUT_S),
    )

    def send(report: Report) -> None:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()

    return job["settings"], send
