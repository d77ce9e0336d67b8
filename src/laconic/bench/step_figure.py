"""Figure of the training step benchmark: a bar for each method, a panel for each link."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from laconic.lab._style import BLACK, BLUE, GRAY, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_steps(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Milliseconds of a step, those of the library in colour; one panel for each link."""
    links = list(dict.fromkeys(row["link"] for row in rows))
    height = 0.5 + 0.28 * max(sum(row["link"] == link for row in rows) for link in links)
    figure, axes = panels(len(links), 1, 7.5, height)
    for place, link in zip(axes.flat, links, strict=True):
        shown = [row for row in rows if row["link"] == link][::-1]
        names = [row["method"] for row in shown]
        colours = [GRAY if row["counted_bytes"] is None else BLUE for row in shown]
        place.barh(names, [row["step_ms"] for row in shown], color=colours, height=0.7)
        place.scatter([row["compute_ms"] for row in shown], names, marker="|", s=120, color=BLACK, zorder=3)
        place.set_title(link, fontsize=10)
        place.grid(visible=False, axis="y")
        place.tick_params(axis="y", labelsize=8)
    axes.flat[-1].set_xlabel("milliseconds a step")
    return figure
