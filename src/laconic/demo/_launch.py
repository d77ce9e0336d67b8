"""Training of the demo's methods in several processes of this machine."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from laconic._launch import launch
from laconic.demo._methods import Method
from laconic.demo._worker import DemoSettings, Run, work

OnStep = Callable[[str, int, float], None]
"""Called with a method's name, a step and the latest validation loss."""
OnNote = Callable[[str], None]
"""Called with notes on progress before the first step."""


def run_all(
    settings: DemoSettings, methods: Sequence[Method], on_step: OnStep, on_note: OnNote = lambda _: None
) -> list[Run]:
    """Train with every method, one after another, in the same processes.

    Args:
        settings: what all methods have in common.
        methods: which to run.
        on_step: called in this process after every step.
        on_note: called in this process until the first step, when something new begins.

    Returns:
        A run for each method, in their order.

    Raises:
        torch.multiprocessing.ProcessRaisedException: where a process failed, with its traceback.
    """
    runs: list[Run] = []

    def take(report: dict[str, Any]) -> None:
        if "run" in report:
            runs.append(Run(**report["run"]))
        elif "note" in report:
            on_note(report["note"])
        else:
            on_step(report["name"], report["step"], report["loss"])

    on_note(f"starting {settings.nodes} processes, each of which imports PyTorch")
    launch(partial(work, settings, tuple(methods)), settings.nodes, take)
    return runs
