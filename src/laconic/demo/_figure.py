"""Figure of the demo: loss against bytes, and against projected time."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from laconic.demo._launch import SLOW
from laconic.demo._methods import Method
from laconic.demo._report import link_factor
from laconic.demo._worker import Run


def plot(methods: Sequence[Method], runs: Sequence[Run], nodes: int, *, measured: bool) -> Figure:
    """Validation loss over what a node's link has carried, and over time on the slow link."""
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    over_bytes, over_time = figure.subplots(1, 2, sharey=True)
    for method, run in zip(methods, runs, strict=True):
        factor = link_factor(method, nodes)
        carried = [factor * handed for handed in run.handed]
        on_link = [0.0 if measured else 8 * link / (SLOW.rate or 1.0) for link in carried]
        clock = [seconds + more for seconds, more in zip(run.seconds, on_link, strict=True)]
        # A logarithmic axis has no place for the start, where nothing has been sent.
        over_bytes.plot(carried[1:], run.losses[1:], color=method.colour, label=method.label, linewidth=1.5)
        over_time.plot(clock, run.losses, color=method.colour, label=method.label, linewidth=1.5)
    over_bytes.set_xscale("log")
    over_bytes.set_xlabel("bytes through a node's link, each way")
    over_bytes.set_ylabel("validation loss (nats per byte)")
    over_time.set_xlabel(
        f"seconds at {SLOW.label}, {'measured' if measured else 'projected: step + bytes / link'}"
    )
    over_time.legend(frameon=False, fontsize=8)
    lowest = min(min(run.losses) for run in runs)
    over_bytes.set_ylim(lowest - 0.1, lowest + 2.2)
    for axes in (over_bytes, over_time):
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Byte transformer on {nodes} nodes, the same steps for all methods", fontsize=11)
    return figure
