"""Figure of the demo: loss against bytes, and against projected time."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from laconic.demo._methods import Method
from laconic.demo._report import LINKS, link_factor
from laconic.demo._worker import Run

_LINK = "100 Mbit/s"


def plot(methods: Sequence[Method], runs: Sequence[Run], nodes: int) -> Figure:
    """Validation loss over what a node's link has carried, and over projected time at 100 Mbit/s."""
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    over_bytes, over_time = figure.subplots(1, 2, sharey=True)
    for method, run in zip(methods, runs, strict=True):
        factor = link_factor(method, nodes)
        carried = [factor * handed for handed in run.handed]
        clock = [
            seconds + 8 * link / LINKS[_LINK] for seconds, link in zip(run.seconds, carried, strict=True)
        ]
        # A logarithmic axis has no place for the start, where nothing has been sent.
        over_bytes.plot(carried[1:], run.losses[1:], color=method.colour, label=method.label, linewidth=1.5)
        over_time.plot(clock, run.losses, color=method.colour, label=method.label, linewidth=1.5)
    over_bytes.set_xscale("log")
    over_bytes.set_xlabel("bytes through a node's link, each way")
    over_bytes.set_ylabel("validation loss (nats per byte)")
    over_time.set_xlabel(f"seconds at {_LINK}, projected: measured step + bytes / link")
    over_time.legend(frameon=False, fontsize=8)
    lowest = min(min(run.losses) for run in runs)
    over_bytes.set_ylim(lowest - 0.1, lowest + 2.2)
    for axes in (over_bytes, over_time):
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Byte transformer on {nodes} nodes, the same steps for all methods", fontsize=11)
    return figure
