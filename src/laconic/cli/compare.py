"""``laconic compare``: methods on a data set, gradient norm against bits sent."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource
from rich.table import Table

from laconic.cli._options import html_option, out_option
from laconic.cli._output import finite, hold_folder, make_console, print_json, progress, quantity, table_like
from laconic.compressors import parse_compressor
from laconic.feedback import make_feedback

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command(name="compare")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--nodes", default=20, show_default=True, help="Nodes that share the rows.")
@click.option(
    "--problem", type=click.Choice(["logistic", "least-squares"]), default="logistic", show_default=True
)
@click.option(
    "--regularizer", default=0.1, show_default=True, help="Weight of the nonconvex regulariser (logistic)."
)
@click.option(
    "--scale",
    type=click.Choice(["none", "maxabs", "standard"]),
    default="none",
    show_default=True,
    help="How the features of FILE are scaled.",
)
@click.option(
    "--methods", default="gd,dcgd,ef14,ef21,ef21+", show_default=True, help="Names, separated by commas."
)
@click.option(
    "--compressor", default="top-k:1", show_default=True, help="See 'laconic compressors'; + chains two."
)
@click.option(
    "--multiples", default="1,4,16,64", show_default=True, help="Multiples of EF21's theoretical stepsize."
)
@click.option("--rounds", default=4000, show_default=True, help="The most rounds a run makes.")
@click.option("--stop", default=1e-7, show_default=True, help="Stop a run at this squared gradient norm.")
@click.option("--seed", default=0, show_default=True, help="Seed of random compressors.")
@out_option("laconic-out", help="Folder for results.json and the figures.")
@click.option("--resume", is_flag=True, help="Resume an interrupted run with the same options.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of a table.")
@html_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path | None,
    nodes: int,
    problem: Literal["logistic", "least-squares"],
    regularizer: float,
    scale: Literal["none", "maxabs", "standard"],
    methods: str,
    compressor: str,
    multiples: str,
    rounds: int,
    stop: float,
    seed: int,
    out: Path,
    resume: bool,
    as_json: bool,
    html: Path | None,
) -> None:
    """Compare methods on a data set, each at its best stepsize.

    FILE is in LibSVM format, plain or compressed (gzip, bzip2, xz). Without one, the breast cancer data that
    come with scikit-learn are used. Every method starts at the same point and runs at the same multiples of
    one stepsize, EF21's theoretical one. The state of the runs is saved in the folder checkpoints of the
    output every five seconds, until the comparison is complete.

    \b
    Example:
      laconic compare
      laconic compare a9a.txt --compressor top-k:1 --multiples 1,4,16 --out a9a
      laconic compare a9a.txt --compressor top-k:1 --multiples 1,4,16 --out a9a \\
        --resume
      laconic compare australian --scale standard --html report.html
    """
    from laconic.lab import compare, plots
    from laconic.lab.datasets import load_problem

    names = [name.strip() for name in methods.split(",")]
    chosen = parse_compressor(compressor)
    by_default = ctx.get_parameter_source("methods") is ParameterSource.DEFAULT
    left_out = by_default and chosen.random and "ef21+" in names
    if left_out:
        names.remove("ef21+")
    for name in names:
        make_feedback(name, chosen)
    steps = _numbers(multiples)
    loaded = load_problem(file, problem, nodes, regularizer, scale)
    hold_folder(out)
    checkpoints = out / "checkpoints"
    if not resume:
        _remove_checkpoints(checkpoints, names)

    console = make_console(stderr=as_json)
    console.print(f"{loaded.title}: {nodes} nodes, d = {loaded.problem.d}, compressor {compressor}")
    try:
        with progress(console) as (bar, task):
            ended = dict.fromkeys(names, 0)

            def on_round(name: str, t: int, smallest: float) -> None:
                # Methods that have stopped early no longer count with all their rounds.
                ended[name] = t
                done, left = sum(ended.values()), len(names) - names.index(name) - 1
                note = f"round {t:>5}  |∇f|² {smallest:.1e}"
                total = done - t + (1 + left) * rounds
                bar.update(task, completed=done, total=total, description=name, note=note)

            comparison = compare(
                loaded.problem,
                names,
                chosen,
                multiples=steps,
                rounds=rounds,
                stop=stop,
                seed=seed,
                on_round=on_round,
                checkpoint=checkpoints,
            )
    except KeyboardInterrupt:
        console.print(f"interrupted; to go on: {_resume_command()}", soft_wrap=True)
        ctx.exit(130)

    title = f"{loaded.title}: {nodes} nodes, {compressor}"
    settings = {
        "data": loaded.title,
        "problem": problem,
        "nodes": nodes,
        "d": loaded.problem.d,
        "L": loaded.problem.L,
        "L_tilde": loaded.problem.L_tilde,
        "regularizer": regularizer,
        "scale": scale,
        "compressor": compressor,
        "multiples": steps,
        "rounds": rounds,
        "seed": seed,
    }
    (out / "results.json").write_text(
        json.dumps(finite({"settings": settings, **comparison.record()}), allow_nan=False)
    )
    _remove_checkpoints(checkpoints, names)
    figures = {
        "bits": plots.plot_curves(comparison, title),
        "multiples": plots.plot_multiples(comparison, title),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    if as_json:
        print_json({"settings": settings, "summary": comparison.summary()})
    else:
        console.print(f"\nBits per node, each method at its best multiple; {_marks(stop)}:")
        console.print(_table(comparison.summary()))
        console.print(
            "values: 32 a kept value, as the papers count; entropy: with positions;\n"
            "packed: as bytes, headers and float64 numbers; down: the estimate sent back, packed."
        )
    notes = list(comparison.notes)
    if left_out:
        notes.append("ef21+ is left out: it needs a compressor without random draws")
    for note in notes:
        console.print(f"note: {note}")
    if html is not None:
        _write_page(html, title, settings, comparison.summary(), stop, figures, notes)
    console.print(f"written to {out}: results.json, bits.png, multiples.png")


def _remove_checkpoints(folder: Path, names: list[str]) -> None:
    """Remove the checkpoints of these methods, and the folder if it is then empty."""
    for name in names:
        (folder / f"{name}.npz").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _resume_command() -> str:
    """The command that was called, with --resume."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["laconic", *arguments, "--resume"])


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"cannot read the multiples {text!r}; write numbers with commas, as 1,4,16"
        ) from error


_HEADS = ("method", "stepsize", "rounds", "|∇f|²", "", "values", "entropy", "packed", "down")


def _marks(stop: float) -> str:
    return f"✓ |∇f|² ≤ {stop:g}, ✗ diverged"


def _table(rows: list[dict[str, object]]) -> Table:
    table = table_like()
    for name in _HEADS:
        table.add_column(name, justify="left" if name in ("method", "") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: dict[str, object]) -> tuple[str, ...]:
    up, down = row["bits_up"], row["bits_down"]
    assert isinstance(up, dict)
    assert isinstance(down, dict)
    return (
        str(row["method"]),
        f"{row['multiple']:g}×",
        f"{row['rounds']}",
        f"{row['grad_norm2']:.1e}",
        {"tolerance": "✓", "rounds": "", "diverged": "✗"}[str(row["end"])],
        quantity(up["values"]),
        quantity(up["entropy"]),
        quantity(up["wire"]),
        quantity(down["wire"]),
    )


def _write_page(
    file: Path,
    title: str,
    settings: dict[str, object],
    rows: list[dict[str, object]],
    stop: float,
    figures: dict[str, "Figure"],
    notes: list[str],
) -> None:
    from laconic._html import Page, png_of, write_page
    from laconic._html import Table as PageTable
    from laconic.bench.machine import describe_machine

    captions = {
        "bits": "Squared gradient norm against bits sent by a node, each method at its best stepsize.",
        "multiples": "Squared gradient norm at the end, by multiple of the theoretical stepsize.",
    }
    table = PageTable(
        "Each method at its best multiple; bits per node",
        _HEADS,
        [_cells(row) for row in rows],
        "values: 32 a kept value, as the papers count; entropy: with positions; packed: as bytes, headers "
        "and float64 numbers; down: the estimate sent back, packed.",
    )
    page = Page(
        title,
        [f"{_marks(stop)}."],
        [table],
        {captions[name]: png_of(figure) for name, figure in figures.items()},
        settings,
        describe_machine(),
        notes,
    )
    write_page(page, file)
