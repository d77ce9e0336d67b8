"""Report of the demo: bytes, projected step times, and the result in words.

A node hands one message a step to a collective. What its link then carries in each direction:

    all-gather, n nodes        (n - 1) * message
    ring all-reduce            2 (n - 1) / n * vector

The projected step time on a link of b bits a second is the measured time of a step on this machine, where
the nodes share its cores and the bytes cross its memory, plus ``8 * link bytes / b``: no delay, and no
overlap of communication with the backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from laconic.demo._methods import Method
from laconic.demo._worker import Run

LINKS = {"100 Mbit/s": 1e8, "1 Gbit/s": 1e9}


@dataclass(frozen=True)
class Row:
    """One method's line of the table.

    Args:
        name: the method's.
        label: for people.
        loss: validation loss, nats a byte.
        message: bytes that a node handed to the collective in a step, on average.
        link: bytes that a node's link carries in each direction in a step, on average.
        seconds: of a step, measured.
        projected: seconds of a step by link.
    """

    name: str
    label: str
    loss: float
    message: float
    link: float
    seconds: float
    projected: dict[str, float]


def link_factor(method: Method, nodes: int) -> float:
    """Messages that a node's link carries in each direction."""
    return 2 * (nodes - 1) / nodes if method.sends == "all" else float(nodes - 1)


def make_row(method: Method, run: Run, nodes: int) -> Row:
    """The line of a run."""
    steps = run.steps[-1]
    message, seconds = run.handed[-1] / steps, run.seconds[-1] / steps
    link = message * link_factor(method, nodes)
    projected = {name: seconds + 8.0 * link / bits for name, bits in LINKS.items()}
    return Row(method.name, method.label, run.loss, message, link, seconds, projected)


def verdict(rows: Sequence[Row]) -> str:
    """The result in words."""
    by_name = {row.name: row for row in rows}
    dense = by_name.get("bf16")
    others = [row for row in rows if row is not dense]
    if dense is None or not others:
        return "Nothing to compare: run bf16 and at least one more method."
    best = min(others, key=lambda row: row.loss)
    gap = 100.0 * (best.loss / dense.loss - 1.0)
    parts = [
        f"Of the compressed methods {best.label} won: its loss is {abs(gap):.1f} % "
        f"{'above' if gap > 0 else 'below'} that of bf16 all-reduce, with messages of "
        f"{100 * best.message / dense.message:.1f} % of its bytes "
        f"({100 * best.link / dense.link:.1f} % through the link)."
    ]
    for link in LINKS:
        factor = dense.projected[link] / best.projected[link]
        faster = f"{factor:.1f} times as fast" if factor > 1 else f"slower ({1 / factor:.1f} times the time)"
        parts.append(f"At {link} its step is projected to be {faster}.")
    ef21 = by_name.get("ef21")
    if ef21 is not None and ef21.loss > best.loss:
        parts.append(
            f"EF21 at 1 % of small, noisy batches ends {100 * (ef21.loss / dense.loss - 1):.0f} % above "
            "bf16: its own case is full gradients and large batches, see 'laconic compare'."
        )
    return " ".join(parts)
