"""What the figures of "On Biased Compression" share."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laconic.lab import _style

PAPER = "On Biased Compression for Distributed Learning"


def panels(columns: int, width: float = 4.4, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure of so many plots side by side."""
    figure, axes = _style.panels(1, columns, width, height)
    return figure, list(axes[0])


def thinned(count: int, most: int = 200) -> list[int]:
    """At most about ``most`` of the numbers 0 to count - 1, evenly spaced, the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(j * (count - 1) / (most - 1)) for j in range(most)})
