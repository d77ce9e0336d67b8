"""``laconic demo``: training of a small transformer by four processes, with each method."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from laconic._nearest import look_up
from laconic.bench.machine import describe_machine
from laconic.cli._options import out_option
from laconic.cli._output import finite, hold_folder, make_console, print_json, progress
from laconic.demo import METHODS, DemoSettings, Method, Results, Row, make_rows, run_all, verdict
from laconic.network import Isolation, isolation


@click.command(name="demo")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=DemoSettings.steps,
    show_default=True,
    help="Steps of each method.",
)
@click.option(
    "--methods",
    default=",".join(method.name for method in METHODS),
    show_default=True,
    help="Names, separated by commas.",
)
@click.option("--nodes", type=click.IntRange(min=2), default=4, show_default=True, help="Processes.")
@click.option("--quick", is_flag=True, help="A tenth of the steps: too few to compare methods.")
@out_option("demo-out", help="Folder for results.json and demo.png.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(steps: int, methods: str, nodes: int, quick: bool, out: Path, as_json: bool) -> None:
    """Train a small transformer on four nodes over a slow link, with four ways to average.

    Four processes on this machine train a byte-level transformer on the source of Python's standard
    library, each on its own share: with a bf16 all-reduce and AdamW, with CompressedAdamW as recommended,
    and with classic error feedback and EF21 on gradients. Every method has the same steps, batches and
    first weights, and its own tuned learning rate. No download.

    On Linux with iproute2, as root or with unprivileged user namespaces, each process is a node of an
    emulated network of 100 Mbit/s, and its steps are timed once more at 1 Gbit/s; nothing of the machine's
    own network is changed. Elsewhere step times are projected from the bytes and marked so.

    \b
    loss      on text that no node trains on, nats a byte
    sent      bytes that a node hands to the collective in a step, counted
    link      what its link then carries each way: n - 1 messages of an
              all-gather, 2 (n - 1) / n vectors of a ring all-reduce
    step      milliseconds, on this machine, whose cores the nodes share
    to loss   seconds to the loss that bf16 has after 60 % of its steps

    \b
    Example:
      laconic demo
      laconic demo --quick --methods bf16,recommended
    """
    from laconic.demo._figure import plot

    known = {method.name: method for method in METHODS}
    chosen = [look_up("method", name.strip(), known) for name in methods.split(",")]
    settings = DemoSettings(steps=max(1, steps // 10) if quick else steps, nodes=nodes)
    hold_folder(out)
    console = make_console(stderr=as_json)
    found = isolation()
    results = _run(console, settings, chosen, found)
    rows = make_rows(chosen, results, settings.nodes)
    measured = bool(results.fast)
    words = verdict(rows, measured=measured)
    record = {
        "settings": asdict(settings),
        "machine": describe_machine(),
        "network": "emulated" if measured else f"projected: {found.reason}",
        "methods": [_described(method) for method in chosen],
        "table": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in results.runs],
        "verdict": words,
    }
    (out / "results.json").write_text(json.dumps(finite(record), allow_nan=False))
    plot(chosen, results.runs, settings.nodes, measured=measured).savefig(out / "demo.png", dpi=150)
    if as_json:
        print_json({name: record[name] for name in ("settings", "network", "table", "verdict")})
    else:
        console.print(_table(rows, settings, found))
    console.print(f"written to {out}: results.json, demo.png; the columns are explained in --help")
    for line in words:
        console.print(line)


def _run(console: Console, settings: DemoSettings, methods: Sequence[Method], found: Isolation) -> Results:
    names = [method.name for method in methods]
    said: set[str] = set()
    with progress(console) as (bar, task):
        bar.update(task, total=len(names) * settings.steps, note="starting")

        def on_step(name: str, step: int, loss: float) -> None:
            done = names.index(name) * settings.steps + step
            bar.update(task, completed=done, description=name, note=f"step {step}, loss {loss:.2f}")

        def on_note(text: str) -> None:
            if not text.startswith("laconic:"):
                bar.update(task, description="", note=text)
            elif text not in said:  # each process says it
                said.add(text)
                bar.console.print(text)

        return run_all(settings, methods, found, on_step, on_note)


def _described(method: Method) -> dict[str, object]:
    fields = ("name", "label", "sends", "lr", "beta1", "beta2", "clip")
    return {field: getattr(method, field) for field in fields} | {"feedback": repr(method.feedback)}


def _table(rows: Sequence[Row], settings: DemoSettings, found: Isolation) -> Table:
    dense = next((row for row in rows if row.name == "bf16"), None)
    how = f"projected, not measured: {found.reason}" if found.prefix is None else "measured, tc tbf"
    caption = f"{settings.nodes} nodes, {settings.steps} steps each; step times in ms {how}"
    table = Table(box=box.SIMPLE_HEAD, padding=0, caption=caption, caption_justify="left")
    table.add_column("\nmethod", no_wrap=True)
    links = tuple(rows[0].step)
    short = [link.removesuffix("bit/s").replace(" ", "") for link in links]
    heads = ("\nloss", "to\nbf16", "sent\nkB", "link\nof bf16")
    for head in (*heads, *(f"step\n{link}" for link in short), *(f"to loss\n{link}" for link in short)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.label,
            f"{row.loss:.3f}",
            "" if dense is None or row is dense else f"{100 * (row.loss / dense.loss - 1):+.1f}%",
            f"{row.message / 1e3:.1f}",
            "" if dense is None else f"{100 * row.link / dense.link:.1f}%",
            *(f"{1e3 * row.step[link]:.0f}" for link in links),
            *(f"{row.seconds_to_loss[link]:.1f}s" if row.seconds_to_loss else "-" for link in links),
        )
    return table
