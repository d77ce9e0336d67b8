"""Report of the demo: losses, bytes, step times by link, time to a loss, and who won.

A node hands one message a step to a collective. What its link then carries in each direction:

    all-gather, n nodes        (n - 1) * message
    ring all-reduce            2 (n - 1) / n * vector

Where no link can be shaped, the time of a step on a link of b bits a second is projected: the measured time
over the loopback device plus ``8 * link bytes / b``, without delay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from laconic.comm.topologies import all_gather_bytes, ring_bytes
from laconic.demo._launch import FAST, SLOW, Results
from laconic.demo._methods import Method
from laconic.demo._worker import Run

SHARE = 0.6
"""The loss to reach is that of the dense method after this share of its steps: the run is short, and what is
compressed lags behind by some tens of steps at any length."""


@dataclass(frozen=True)
class Row:
    """One method's line of the table.

    Args:
        name: the method's.
        label: for people.
        loss: validation loss, nats a byte.
        message: bytes that a node handed to the collective in a step, on average.
        link: bytes that a node's link carries in each direction in a step, on average.
        step: seconds of a step by link.
        steps_to_loss: steps until the loss to reach; None where it was not reached.
        seconds_to_loss: the same in seconds, by link; empty where it was not reached.
    """

    name: str
    label: str
    loss: float
    message: float
    link: float
    step: dict[str, float]
    steps_to_loss: float | None
    seconds_to_loss: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Multiply."""
        steps = self.steps_to_loss
        found = {} if steps is None else {link: steps * seconds for link, seconds in self.step.items()}
        object.__setattr__(self, "seconds_to_loss", found)


def link_factor(method: Method, nodes: int) -> float:
    """Messages that a node's link carries in each direction."""
    return ring_bytes(nodes, 1.0) if method.sends == "all" else all_gather_bytes(nodes, 1.0)


def loss_to_reach(runs: Sequence[Run]) -> float | None:
    """The dense method's after :data:`SHARE` of its steps; None where it was not run."""
    dense = next((run for run in runs if run.name == "bf16"), None)
    if dense is None:
        return None
    wanted = SHARE * dense.steps[-1]
    return next(loss for step, loss in zip(dense.steps, dense.losses, strict=True) if step >= wanted)


def steps_to(run: Run, loss: float) -> float | None:
    """Steps until the curve, between its points a line, is at the loss; None where it never is.

    Example:
        >>> steps_to(Run("x", 1.0, [0, 10, 20], [5.0, 2.0, 1.0], [], []), 1.5)
        15.0
    """
    points = zip(run.steps, run.losses, strict=True)
    for (step, before), (following, after) in pairwise(points):
        if before <= loss:
            return float(step)
        if after <= loss:
            return step + (following - step) * (before - loss) / (before - after)
    return None


def make_rows(methods: Sequence[Method], results: Results, nodes: int) -> list[Row]:
    """The lines of the table."""
    target = loss_to_reach(results.runs)
    rows = []
    for method, run in zip(methods, results.runs, strict=True):
        steps = run.steps[-1]
        message, seconds = run.handed[-1] / steps, run.seconds[-1] / steps
        link = message * link_factor(method, nodes)
        if results.fast:
            step = {SLOW.label: seconds, FAST.label: results.fast[method.name]}
        else:
            step = {each.label: seconds + 8.0 * link / (each.rate or 1.0) for each in (SLOW, FAST)}
        reached = None if target is None else steps_to(run, target)
        rows.append(Row(method.name, method.label, run.loss, message, link, step, reached))
    return rows


def verdict(rows: Sequence[Row], *, measured: bool) -> list[str]:
    """Who won on each link, and how all losses ended."""
    dense = next((row for row in rows if row.name == "bf16"), None)
    others = [row for row in rows if row is not dense]
    if dense is None or not others:
        return ["Nothing to compare: run bf16 and at least one more method."]
    words = []
    for link in dense.seconds_to_loss:
        where = f"At {link}" if measured else f"At {link} (projected, not measured)"
        reached = [row for row in others if row.seconds_to_loss]
        if not reached:
            share = f"{100 * SHARE:.0f} %"
            words.append(f"{where} bf16 won: nothing else reached its loss at {share} of its steps.")
            continue
        best = min(reached, key=lambda row: row.seconds_to_loss[link])
        own, whole = best.seconds_to_loss[link], dense.seconds_to_loss[link]
        if own < whole:
            words.append(
                f"{where} {best.label} won: {own:.1f} s to the loss that bf16 has after {whole:.1f} s, "
                f"{whole / own:.1f} times as fast."
            )
        else:
            words.append(
                f"{where} bf16 won: {whole:.1f} s to that loss; {best.label} lost, {own:.1f} s. Do not "
                "compress for such a link."
            )
    gaps = ", ".join(f"{row.label} {100 * (row.loss / dense.loss - 1):+.1f} %" for row in others)
    words.append(f"Final loss against bf16 after equal steps: {gaps}.")
    ef21 = next((row for row in others if row.name == "ef21"), None)
    if ef21 is not None and ef21.loss > 1.05 * dense.loss:
        words.append(
            "EF21 is for full gradients and large batches, not for small noisy ones: laconic compare."
        )
    return words
