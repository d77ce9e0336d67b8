"""``laconic bench step``: training steps of four ranks on a shaped network, against dense averaging."""

from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from laconic._nearest import look_up
from laconic.bench import step as bench
from laconic.bench.machine import describe_machine
from laconic.bench.step_methods import METHODS
from laconic.bench.step_models import WORKLOADS
from laconic.cli._options import html_option, json_option
from laconic.cli._output import make_console, progress, quantity, table_like, write_record
from laconic.network import Link, parse_rate


def _links(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float | None, ...]:
    """Rates separated by commas."""
    try:
        return tuple(parse_rate(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command(name="step")
@click.option("--model", type=click.Choice(list(WORKLOADS)), default="mlp-10m", show_default=True)
@click.option(
    "--rates",
    callback=_links,
    default="100mbit,1gbit,none",
    show_default=True,
    help="Each rank's link, both ways; none is unshaped.",
)
@click.option(
    "--delay-ms",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="From rank to rank, one way.",
)
@click.option("--nodes", type=click.IntRange(2, 16), default=4, show_default=True, help="Ranks.")
@click.option(
    "--methods",
    default=",".join(METHODS),
    show_default="all",
    metavar="NAMES",
    help=f"Of {', '.join(METHODS)}.",
)
@click.option(
    "--turns", type=click.IntRange(min=1), default=5, show_default=True, help="Of each method, that count."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="In a turn: fewer where they take long, and at least one round of local steps.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each rank.")
@json_option
@html_option
def command(
    model: str,
    rates: tuple[float | None, ...],
    delay_ms: float,
    nodes: int,
    methods: str,
    turns: int,
    steps: int,
    threads: int,
    out: Path | None,
    html: Path | None,
) -> None:
    """Measure whole training steps of several ranks on a shaped network.

    Each rank runs in a network namespace of its own on this machine; tc tbf limits each link both ways, and
    netem or a switch in user space delays it. It needs Linux with iproute2, and root or unprivileged user
    namespaces; otherwise the ranks talk over the loopback device, and the table says so. Nothing of the
    machine's own network is changed.

    All methods train the same model from the same weights on the same batches, in turns in one run, and so
    does "compute alone": the same training without averaging, with the same optimiser.

    \b
    step     milliseconds, median over turns; a step ends with its slowest rank
    spread   the slowest turn less the fastest
    compute  compute alone; ratio is the median of step over compute
    codec    processor time of a rank in a step, less that of compute alone
    sent     bytes that a rank's interface sends in a step, without headers
    counted  the same by the library's own count

    \b
    Example:
      laconic bench step
      laconic bench step --model transformer-10m --rates 100mbit --html step.html
      laconic bench step --rates 1gbit --delay-ms 5 \\
        --methods bf16-adamw,recommended
    """
    names = tuple(look_up("method", name.strip(), METHODS).name for name in methods.split(","))
    links = tuple(Link(rate, delay_ms) for rate in rates)
    if html is not None:
        import_module("matplotlib")  # missed now, not after the measurement
    settings = bench.StepSettings(model, links, nodes, names, turns, steps, threads)
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=bench.count_notes(settings), description="step", note="starting")

        def advance(note: str) -> None:
            bar.update(task, note=note)
            bar.advance(task)

        found = bench.measure(settings, advance)
    options = {
        "model": model,
        "rates": ",".join(map(_written, rates)),
        "delay-ms": f"{delay_ms:g}",
        "nodes": nodes,
        "methods": ",".join(names),
        "turns": turns,
        "steps": steps,
        "threads": threads,
    }
    record = {
        "command": "laconic bench step " + " ".join(f"--{name} {value}" for name, value in options.items()),
        "machine": describe_machine() | {"threads": str(threads)},
        **found,
    }
    if html is not None:
        _write_page(html, record)
    if write_record(record, out):
        return
    console = make_console()
    console.print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    console.print(f"{model}, {nodes} ranks; network: {found['network']}")
    for link in dict.fromkeys(row["link"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["link"] == link]
        console.print(f"{link}: milliseconds and bytes a step")
        console.print(_table(rows))
        console.print(_sentence(rows))


def _written(rate: float | None) -> str:
    return "none" if rate is None else f"{rate / 1e6:g}mbit"


_LEGEND = (
    "Milliseconds and bytes a step. step: median over turns; spread: the slowest turn less the fastest; "
    "compute: the same training without averaging; ratio: median of step over compute; codec: processor time "
    "above that of compute; sent: by the interface, without headers; counted: by the library."
)
_HEADS = ("method", "step", "spread", "compute", "ratio", "codec", "sent", "counted")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = table_like()
    for name in _HEADS:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counted = row["counted_bytes"]
    return (
        row["method"],
        f"{row['step_ms']:.0f}",
        f"{row['spread_ms']:.0f}",
        f"{row['compute_ms']:.0f}",
        f"{row['ratio']:.2f}",
        f"{row['cpu_ms']:.1f}",
        quantity(row["payload_bytes"]),
        "" if counted is None else quantity(counted),
    )


def _write_page(file: Path, record: dict[str, Any]) -> None:
    from laconic._html import Page, png_of, write_page
    from laconic._html import Table as PageTable
    from laconic.bench.step_figure import plot_steps

    links = {
        link: [row for row in record["rows"] if row["link"] == link]
        for link in dict.fromkeys(row["link"] for row in record["rows"])
    }
    settings = record["settings"]
    page = Page(
        f"Training steps: {settings['model']}, {settings['nodes']} ranks",
        [f"{link}. {_sentence(rows)}" for link, rows in links.items()],
        [PageTable(link, _HEADS, [_cells(row) for row in rows], _LEGEND) for link, rows in links.items()],
        {"A step by method and link; the mark is computation alone.": png_of(plot_steps(record["rows"]))},
        settings | {"links": ", ".join(links), "network": record["network"]},
        record["machine"],
    )
    write_page(page, file)


def _sentence(rows: list[dict[str, Any]]) -> str:
    """Which method's step is shortest, and what the recommended ones are against bf16."""
    best = min(rows, key=lambda row: row["ratio"])
    words = f"Shortest step relative to compute: {best['method']}, {best['ratio']:.2f} times."
    by_name = {row["method"]: row for row in rows}
    for name, dense in (("recommended-hook", "bf16"), ("recommended", "bf16-adamw")):
        if name in by_name and dense in by_name:
            gain = by_name[dense]["step_ms"] / by_name[name]["step_ms"]
            faster = f"{gain:.1f} times as fast as" if gain >= 1 else f"{1 / gain:.1f} times slower than"
            words += f" {name} is {faster} {dense}."
    return words
