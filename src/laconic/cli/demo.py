"""``laconic demo``: training of a small transformer by four processes, with each method."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laconic._nearest import look_up
from laconic.cli._output import finite, hold_folder, print_json, progress
from laconic.demo import LINKS, METHODS, DemoSettings, Method, Row, Run, make_row, run_all, verdict


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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for results.json and demo.png.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(steps: int, methods: str, nodes: int, quick: bool, out: Path, as_json: bool) -> None:
    """Train a small transformer on four nodes, with six ways to exchange gradients or updates.

    Four processes on this machine train a byte-level transformer on the source of Python's standard
    library, each on its own share: with a bf16 all-reduce and AdamW, and with 1 % of the coordinates
    without feedback, with classic error feedback and EF21 on gradients, and with CompressedAdamW. Every
    method has the same steps, batches and first weights, and its own tuned learning rate. No download.

    \b
    loss      on text that no node trains on, nats a byte
    sent      bytes that a node hands to the collective in a step, measured
    link      what its link then carries each way: n - 1 messages of an
              all-gather, 2 (n - 1) / n vectors of a ring all-reduce
    step      measured on this machine, whose cores the nodes share
    projected the same, plus the link's bytes at that speed: no delay, no
              overlap

    \b
    Example:
      laconic demo
      laconic demo --quick --methods bf16,compressed-1bit
    """
    from laconic.demo._figure import plot

    known = {method.name: method for method in METHODS}
    chosen = [look_up("method", name.strip(), known) for name in methods.split(",")]
    settings = DemoSettings(steps=max(1, steps // 10) if quick else steps, nodes=nodes)
    hold_folder(out)
    console = Console(stderr=as_json, highlight=False)
    console.print(
        f"{settings.nodes} processes, {settings.steps} steps each of: "
        + ", ".join(method.name for method in chosen)
    )
    runs = _run(console, settings, chosen)
    rows = [make_row(method, run, settings.nodes) for method, run in zip(chosen, runs, strict=True)]
    words = verdict(rows)
    record = {
        "settings": asdict(settings),
        "methods": [_described(method) for method in chosen],
        "table": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in runs],
        "verdict": words,
    }
    (out / "results.json").write_text(json.dumps(finite(record), allow_nan=False))
    plot(chosen, runs, settings.nodes).savefig(out / "demo.png", dpi=150)
    if as_json:
        print_json({"settings": asdict(settings), "table": [asdict(row) for row in rows], "verdict": words})
    else:
        console.print(_table(rows))
    console.print(f"written to {out}: results.json, demo.png; the columns are explained in --help")
    console.print(words)


def _run(console: Console, settings: DemoSettings, methods: Sequence[Method]) -> list[Run]:
    names = [method.name for method in methods]
    if not console.is_terminal:

        def on_line(name: str, step: int, loss: float) -> None:
            if step == settings.steps or step % max(1, settings.steps // 3) == 0:
                console.print(f"{name:<16} step {step:>4}  validation loss {loss:.3f}")

        def on_new(text: str) -> None:
            if text.startswith("laconic:"):  # the rest is for a bar
                console.print(text, markup=False)

        return run_all(settings, methods, on_line, on_new)
    with progress(console) as (bar, task):
        bar.update(task, total=len(names) * settings.steps)

        def on_step(name: str, step: int, loss: float) -> None:
            done = names.index(name) * settings.steps + step
            note = f"step {step:>4}  validation loss {loss:.3f}"
            bar.update(task, completed=done, description=f"{name:<15}", note=note)

        def on_note(text: str) -> None:
            if text.startswith("laconic:"):
                console.print(text, markup=False)
            else:
                bar.update(task, description="", note=escape(text))

        return run_all(settings, methods, on_step, on_note)


def _described(method: Method) -> dict[str, object]:
    fields = ("name", "label", "sends", "lr", "beta1", "clip")
    return {field: getattr(method, field) for field in fields} | {"feedback": repr(method.feedback)}


def _table(rows: Sequence[Row]) -> Table:
    dense = next((row for row in rows if row.name == "bf16"), None)
    table = Table(box=box.SIMPLE_HEAD, padding=0, caption="steps in milliseconds; * projected, not measured")
    table.add_column("\nmethod", no_wrap=True)
    heads = ("\nloss", "to\nbf16", "sent\nkB", "of\nbf16", "link\nof bf16", "step\nms")
    for head in (*heads, *(link.replace(" ", "\n") + "*" for link in LINKS)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.label,
            f"{row.loss:.3f}",
            "" if dense is None else f"{100 * (row.loss / dense.loss - 1):+.1f}%",
            f"{row.message / 1e3:.1f}",
            "" if dense is None else f"{100 * row.message / dense.message:.1f}%",
            "" if dense is None else f"{100 * row.link / dense.link:.1f}%",
            f"{1e3 * row.seconds:.0f}",
            *(f"{1e3 * row.projected[link]:.0f}" for link in LINKS),
        )
    return table
