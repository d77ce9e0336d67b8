"""Axes and curves of the experiments' figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from laconic.lab import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    rows: int, columns: int, width: float = 4.4, height: float = 4.2, title: str = "", size: float = 11
) -> tuple[Figure, Any]:
    """A figure with a title in a font of this size, and its axes (rows, columns), of so many inches each."""
    figure, axes = _style.panels(rows, columns, width, height)
    if title:
        figure.suptitle(title, fontsize=size)
    return figure, axes


def label(
    axes: Axes,
    x: str,
    y: str,
    title: str = "",
    *,
    log: str = "",
    ylim: tuple[float, float] | None = None,
    size: float = 10,
    legend: float | None = 8,
    **place: Any,
) -> None:
    """Label axes.

    Args:
        axes: whose curves are drawn.
        x: label of the x axis.
        y: label of the y axis.
        title: the title.
        log: which axes are logarithmic: "x", "y" or "xy".
        ylim: limits of the y axis.
        size: font size of the title.
        legend: font size of the legend, or None for no legend.
        place: what ``Axes.legend`` takes, as ``loc``.
    """
    for name in log:
        axes.set(**{f"{name}scale": "log"})
    if ylim is not None:
        axes.set_ylim(*ylim)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=size)
    if legend is not None:
        axes.legend(frameon=False, fontsize=legend, **place)


def thinned(count: int, most: int = 200, log: bool = False) -> npt.NDArray[np.int64]:
    """About ``most`` of the indices 0 to count - 1, evenly spaced or at even ratios, with both ends."""
    if count <= most:
        return np.arange(count)
    if log:
        spread = np.concatenate([[0], np.geomspace(1, count - 1, most)])
    else:
        spread = np.arange(most) * (count - 1) / (most - 1)
    return np.unique(spread.round().astype(np.int64))


def listed(values: Sequence[float], form: str = ".2g") -> str:
    """Numbers for a verdict, with commas."""
    return ", ".join(f"{value:{form}}" for value in values)
