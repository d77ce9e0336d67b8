"""Benchmark of training steps on a shaped network: dense averaging, other compressors and this library's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.bench.network import DEVICE, Isolation, Link, Network, isolation
from laconic.bench.step_methods import METHODS
from laconic.bench.step_models import WORKLOADS
from laconic.bench.step_rank import WARM_UP_TURNS, RankSettings

Progress = Callable[[str], None]


@dataclass(frozen=True)
class StepSettings:
    """What to measure.

    Args:
        model: name of a workload.
        links: the network's, one after another.
        nodes: ranks, each in a network namespace of its own.
        methods: names.
        turns: that count, of each method.
        steps: in a turn.
        threads: a rank.
    """

    model: str = "mlp-10m"
    links: tuple[Link, ...] = (Link(100e6), Link(1e9), Link(None))
    nodes: int = 4
    methods: tuple[str, ...] = tuple(METHODS)
    turns: int = 5
    steps: int = 4
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.model not in WORKLOADS:
            raise ValueError(f"model {self.model!r}: one of {', '.join(WORKLOADS)}")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"methods {', '.join(unknown)}: of {', '.join(METHODS)}")


def count_notes(settings: StepSettings) -> int:
    """How many notes :func:`measure` sends."""
    kinds = len({METHODS[name].optimizer for name in settings.methods})
    turns = (WARM_UP_TURNS + settings.turns) * (len(settings.methods) + kinds)
    return len(settings.links) * (turns + 1)


def measure(settings: StepSettings, progress: Progress) -> dict[str, Any]:
    """Measure all links.

    Returns:
        "settings", "network" ("shaped", or why it is not), and "rows": those of the ranks, each with "model",
        "nodes", "threads", "rate" (bits a second or None), "delay_ms" and "link".

    Raises:
        RuntimeError: where a rank failed, with what it wrote.
    """
    found = isolation()
    rows = []
    for link in settings.links if found.prefix else (Link(None),):

        def note(text: str, link: Link = link) -> None:
            progress(f"{link.label}: {text}")

        context = {
            "model": settings.model,
            "nodes": settings.nodes,
            "threads": settings.threads,
            "rate": link.rate,
            "delay_ms": link.delay_ms,
            "link": link.label,
        }
        rows += [context | row for row in _measure_link(settings, link, found, note)]
    return {
        "settings": asdict(settings),
        "network": "shaped" if found.prefix else f"loopback, unshaped: {found.reason}",
        "rows": rows,
    }


def _measure_link(
    settings: StepSettings, link: Link, found: Isolation, progress: Progress
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "link": asdict(link) if found.prefix else None,
            "folder": folder,
            "rank": asdict(
                RankSettings(
                    settings.model,
                    settings.methods,
                    settings.nodes,
                    settings.turns,
                    settings.steps,
                    settings.threads,
                    str(Path(folder) / "meeting"),
                    DEVICE if found.prefix else "lo",
                )
            ),
        }
        command = [*(found.prefix or ()), sys.executable, "-m", "laconic.bench.step", json.dumps(job)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        rows: list[dict[str, Any]] | None = None
        try:
            for line in process.stdout:
                report = json.loads(line)
                if "note" in report:
                    progress(report["note"])
                rows = report.get("rows", rows)
            process.wait()
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
        if process.returncode or rows is None:
            wrote = [
                f"{path.stem}: {path.read_text()[-2000:]}" for path in sorted(Path(folder).glob("*.log"))
            ]
            raise RuntimeError("a rank of the benchmark failed\n" + "\n".join(wrote))
        return rows


def run_network(job: dict[str, Any]) -> int:
    """Build the network and run the ranks in it, until all have ended or one has failed; the exit status."""
    nodes = job["rank"]["nodes"]
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": job["rank"]["device"],
        "OMP_NUM_THREADS": str(job["rank"]["threads"]),
    }
    with ExitStack() as stack:
        network = stack.enter_context(Network(nodes, Link(**job["link"]))) if job["link"] else None
        ranks = []
        for rank in range(nodes):
            log = stack.enter_context((Path(job["folder"]) / f"rank{rank}.log").open("w"))
            prefix = network.command(rank) if network else []
            command = [sys.executable, "-m", "laconic.bench.step_rank", str(rank), json.dumps(job["rank"])]
            out = None if rank == 0 else log
            ranks.append(
                stack.enter_context(
                    subprocess.Popen([*prefix, *command], stdout=out, stderr=log, env=environment)
                )
            )
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
    from laconic.bench.network import die_with_parent

    die_with_parent()
    sys.exit(run_network(json.loads(sys.argv[1])))
