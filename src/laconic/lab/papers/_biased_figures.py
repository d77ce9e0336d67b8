"""The look that the figures of "On Biased Compression" share."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAPER = "On Biased Compression for Distributed Learning"

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GRAY, BLACK = "#7f7f7f", "#000000"


def panels(columns: int, width: float = 4.4, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure of so many plots side by side."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    drawn = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for axes in drawn:
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, drawn


def legend(axes: Axes, size: float = 8) -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, fontsize=size)


def thinned(count: int, most: int = 200) -> list[int]:
    """At most about ``most`` of the numbers 0 to count - 1, evenly spaced, the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(j * (count - 1) / (most - 1)) for j in range(most)})
