"""Style of the figures: colours, axes, legends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GRAY, BLACK = "#7f7f7f", "#000000"

COLOURS = {
    "GD": GRAY,
    "SGD": GRAY,
    "DCGD": RED,
    "EF14": ORANGE,
    "EF21": BLUE,
    "EF21+": GREEN,
    "EF21-SGD": BLUE,
    "EF21-SGDM": PINK,
}
"""Colours of the methods, by the names that legends give them."""
SERIES = (BLACK, SKY, GREEN, ORANGE, RED, PINK, BLUE)
"""Colours for what is not a method, in order."""
GRADIENT = r"$\Vert\nabla f(x)\Vert^2$"


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure, and its axes as an array (rows, columns); width and height are inches of each of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat:
        place.grid(visible=True, which="major", alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend(axes: Axes, size: float = 8) -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, fontsize=size)
