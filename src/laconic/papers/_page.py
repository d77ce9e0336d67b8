"""HTML page of all experiments, self-contained: no network, no scripts."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from laconic._html import render as render_template
from laconic.papers._write import Attempt, counted

CITED = {
    "EF21: A New": "https://arxiv.org/abs/2106.05203",
    "On Biased Compression": "https://arxiv.org/abs/2002.12410",
}
"""Address of a paper, by words of its title."""

_MARKS = {"agrees": "✓", "erratum": "!", "disagrees": "✗", "failed": "✗", "not run": "–"}


def render(
    attempts: Sequence[Attempt], folder: Path, *, links: bool = True, machine: Mapping[str, str] | None = None
) -> str:
    """The page, as text.

    Args:
        attempts: experiments that ran and that did not, grouped by paper.
        folder: the folder of the figures.
        links: whether the page lies there, too, and links to the other files.
        machine: on which they ran, for the foot of the page.
    """
    figures = {
        attempt.experiment.name: (folder / f"{attempt.experiment.name}.png").read_bytes()
        for attempt in attempts
        if attempt.record
    }
    return render_template(
        "papers.html",
        papers=[(paper, list(group)) for paper, group in groupby(attempts, lambda a: a.experiment.paper)],
        counts=counts_of(attempts),
        quick=any(attempt.record and attempt.record.key.quick for attempt in attempts),
        figures=figures,
        links=links,
        machine=machine,
        cited=CITED,
        marks=_MARKS,
        duration=duration,
    )


def counts_of(attempts: Sequence[Attempt]) -> str:
    """Number of experiments by outcome, in words."""
    words = {
        "agrees": ("agrees with the paper", "agree with the paper"),
        "erratum": ("agrees but for known errata", "agree but for known errata"),
        "disagrees": ("disagrees", "disagree"),
        "failed": ("failed", "failed"),
        "not run": ("was not run", "were not run"),
    }
    total = f"{len(attempts)} experiment{'s' if len(attempts) > 1 else ''}"
    return f"Of {total} {counted([attempt.state for attempt in attempts], words)}"


def duration(seconds: float) -> str:
    """A duration in words: 8.3 s, 42 s, 3 min 5 s, 2 h 4 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
