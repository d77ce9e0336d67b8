"""Figures of a comparison: gradient norm against bits, and against stepsize multiples."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.lab._compare import Comparison
from laconic.lab._style import COLOURS, GRADIENT, panels
from laconic.messages import Accounting

_LABELS = {
    "gd": "GD",
    "dcgd": "DCGD",
    "ef14": "EF14",
    "ef21": "EF21",
    "ef21+": "EF21+",
    "ef21-sgdm": "EF21-SGDM",
}
_MARKERS = {"gd": "s", "dcgd": "D", "ef14": "^", "ef21": "o", "ef21+": "v", "ef21-sgdm": "P"}
_KINDS: dict[Accounting, str] = {
    "wire": "bits sent per node (packed bytes)",
    "values": "bits sent per node (32 per kept value, the papers' count)",
    "entropy": "bits sent per node (entropy of the messages)",
}


def plot_curves(comparison: Comparison, title: str, kind: Accounting = "values") -> Figure:
    """``|grad f|^2`` against bits per node, each method at its best multiple; both axes logarithmic."""
    figure, axes = _figure()
    for name, result in comparison.results.items():
        i = result.best()
        rounds = int(result.rounds[i])
        # A logarithmic axis has no place for the start, where nothing has been sent.
        sent = result.bits(kind)[i, : rounds + 1]
        shown = sent > 0
        label = f"{_LABELS[name]}, {result.multiples[i]:g}× stepsize"
        norms = result.grad_norm2[i, : rounds + 1]
        axes.plot(sent[shown], norms[shown], color=COLOURS[_LABELS[name]], label=label, linewidth=1.5)
        if result.ends[i] == "tolerance":
            axes.plot(sent[-1], norms[-1], "o", color=COLOURS[_LABELS[name]], markersize=6)
    _draw_tolerance(axes, comparison.stop)
    axes.set_xscale("log")
    axes.set_xlabel(_KINDS[kind])
    axes.set_ylabel(GRADIENT)
    axes.set_title(title)
    axes.legend(frameon=False)
    return figure


def plot_multiples(comparison: Comparison, title: str) -> Figure:
    """The last ``|grad f|^2`` over stepsize multiples: where each method stalls or converges."""
    figure, axes = _figure()
    for name, result in comparison.results.items():
        colour, marker = COLOURS[_LABELS[name]], _MARKERS[name]
        finite = np.isfinite(result.final)
        multiples = np.array(result.multiples)
        axes.plot(multiples[finite], result.final[finite], "-", color=colour, linewidth=1.2, alpha=0.7)
        for multiple, end, value in zip(multiples, result.ends, result.final, strict=True):
            if end == "diverged":
                # At the upper edge, whatever the scale.
                place = axes.get_xaxis_transform()
                axes.plot(multiple, 1.0, "x", color=colour, transform=place, clip_on=False)
            else:
                face = colour if end == "tolerance" else "white"
                axes.plot(multiple, value, marker, color=colour, markerfacecolor=face, markersize=7)
        axes.plot([], [], marker + "-", color=colour, label=_LABELS[name])
    axes.plot([], [], "o", color="black", markerfacecolor="white", label="not reached")
    axes.plot([], [], "x", color="black", label="diverged")
    _draw_tolerance(axes, comparison.stop)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("multiple of the theoretical stepsize: EF21's, and 1/L for GD")
    axes.set_ylabel(f"{GRADIENT} at the end")
    axes.set_title(title)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_tolerance(axes: Axes, stop: float) -> None:
    axes.axhline(stop, color="black", linestyle=":", linewidth=1)
    place = ("axes fraction", "data")
    axes.annotate("tolerance", (0.01, stop), xycoords=place, ha="left", va="bottom", fontsize=8)


def _figure() -> tuple[Figure, Axes]:
    figure, ((axes,),) = panels(1, 1, 7.0, 4.6)
    axes.set_yscale("log")
    return figure, axes
