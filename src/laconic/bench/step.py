"""Benchmark of training steps on a shaped network: dense averaging, other compressors and this library's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from laconic.bench.step_methods import METHODS
from laconic.bench.step_models import WORKLOADS
from laconic.bench.step_rank import LOOPBACK, WARM_UP_TURNS, RankSettings
from laconic.network import DEVICE, Isolation, Link, Ranks, isolation

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
    rank = RankSettings(
        settings.model,
        settings.methods,
        settings.nodes,
        settings.turns,
        settings.steps,
        settings.threads,
        DEVICE if found.prefix else LOOPBACK,
    )
    rows: list[dict[str, Any]] = []

    def take(report: dict[str, Any]) -> None:
        if "note" in report:
            progress(report["note"])
        rows.extend(report.get("rows", ()))

    ranks = Ranks("laconic.bench.step_rank", asdict(rank), settings.nodes, settings.threads)
    ranks.run(link, found, take)
    return rows
