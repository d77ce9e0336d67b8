"""Training with the demo's methods by processes on an emulated network, or over the loopback device."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laconic.demo._methods import Method
from laconic.demo._worker import DemoSettings, Run
from laconic.network import Isolation, Link, Ranks

SLOW, FAST = Link(1e8), Link(1e9)
"""All training is on the slow link; on the fast one some steps are timed."""

OnStep = Callable[[str, int, float], None]
"""Called with a method's name, a step and the latest validation loss."""
OnNote = Callable[[str], None]
"""Called with notes on progress."""


@dataclass(frozen=True)
class Results:
    """What the demo has measured.

    Args:
        runs: one for each method.
        fast: seconds of a step on the fast link by method; empty where nothing could be shaped.
    """

    runs: list[Run]
    fast: dict[str, float]


def run_all(
    settings: DemoSettings,
    methods: Sequence[Method],
    found: Isolation,
    on_step: OnStep,
    on_note: OnNote = lambda _: None,
) -> Results:
    """Train with every method, one after another, in the same processes; then time steps on the fast link.

    Args:
        settings: what all methods have in common.
        methods: which to run.
        found: the way to an emulated network, if there is one.
        on_step: called after every step.
        on_note: called when something new begins.

    Raises:
        RuntimeError: where a process failed, with what it wrote.
    """
    results = Results([], {})

    def take(report: dict[str, Any]) -> None:
        if "run" in report:
            results.runs.append(Run(**report["run"]))
        elif "note" in report:
            on_note(report["note"])
        elif "seconds" in report:
            results.fast[report["name"]] = report["seconds"]
        else:
            on_step(report["name"], report["step"], report["loss"])

    names = [method.name for method in methods]
    links = [SLOW, FAST] if found.prefix else [Link(None)]
    for number, link in enumerate(links):
        on_note(f"{link.label}: starting {settings.nodes} processes")
        job = {"settings": asdict(settings), "methods": names, "trains": number == 0}
        Ranks("laconic.demo", job, settings.nodes).run(link, found, take)
    return results
