"""``laconic reproduce``: the papers' experiments, with verdicts against the papers."""

import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic._nearest import look_up
from laconic.cli._options import html_option, out_option
from laconic.cli._output import hold_folder, make_console, print_json, progress, table_like

if TYPE_CHECKING:
    from laconic.papers import Experiment
    from laconic.papers._write import Attempt, Record

_COLOURS = {"agrees": "green", "erratum": "yellow", "disagrees": "red", "failed": "red", "not run": "dim"}
_WHERE = (
    "LibSVM's data sets are at https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html (save a9a "
    "as libsvm/a9a.txt), CIFAR-10 at https://www.cs.toronto.edu/~kriz/cifar.html (docs/reproduce.md makes "
    "images/cifar10_subset.npz of it); name the folder with --data DIR or LACONIC_DATA"
)


@dataclass(frozen=True)
class _Request:
    """Experiments to run, their settings, and the folder for results."""

    experiments: Sequence["Experiment"]
    quick: bool
    out: Path
    data: Path | None
    resume: bool
    html: Path | None


@click.command(name="reproduce")
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="Smaller or shorter runs: minutes instead of hours for all.")
@out_option("reproduce-out", help="Folder for figures, numbers and verdicts.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    envvar="LACONIC_DATA",
    show_envvar=True,
    help="Folder with libsvm/ and images/.",
)
@click.option("--resume", is_flag=True, help="Keep results in OUT of runs with the same settings.")
@click.option("--list", "listing", is_flag=True, help="List the experiments and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@html_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    quick: bool,
    out: Path,
    data: Path | None,
    resume: bool,
    listing: bool,
    as_json: bool,
    html: Path | None,
) -> None:
    """Run an experiment of the papers, or all of them, and say where it agrees.

    NAME is one of --list, or all. Each experiment writes NAME.png, NAME.csv (the numbers behind the figure)
    and NAME.json (what the paper shows, what this run gave, and whether they agree); all of them also
    write index.html, one page with everything. An erratum is a place where the paper is known to be wrong.

    The exit code is 0 where nothing disagrees, else 1. With all, experiments whose data are missing are
    not run, and do not count.

    \b
    Example:
      laconic reproduce --list
      laconic reproduce all --quick --data ~/data --html papers.html
      laconic reproduce all --data ~/data --resume
    """
    from laconic import papers

    known = papers.EXPERIMENTS
    console = _console(as_json)
    if listing:
        _list(console, list(known.values()), data, as_json)
        return
    if name is None:
        raise click.UsageError("Name an experiment, or all; --list shows them.")
    look_up("experiment", name, {**known, "all": None})
    chosen = list(known.values()) if name == "all" else [known[name]]
    request = _Request(chosen, quick, out, data, resume, html)
    hold_folder(out)
    attempts: list[Attempt] = []
    try:
        _run(console, request, attempts, everything=name == "all")
    except KeyboardInterrupt:
        if name == "all":
            _write_pages(request, attempts)
        console.print(f"interrupted; to go on from here:\n{_resume_command(name, request)}", soft_wrap=True)
        ctx.exit(130)
    if name == "all":
        _report_all(console, request, attempts, as_json)
    else:
        _write_pages(request, attempts, index=False)
        _report_one(console, request, attempts[0], as_json)
    ctx.exit(1 if any(attempt.bad for attempt in attempts) else 0)


def _console(as_json: bool) -> Console:
    console = make_console(stderr=as_json)
    console.width = min(console.width, 100)
    return console


def _resume_command(name: str, request: _Request) -> str:
    words = ["laconic", "reproduce", name, *(["--quick"] if request.quick else []), "--out", str(request.out)]
    if request.data is not None:
        words += ["--data", str(request.data)]
    return shlex.join([*words, "--resume"])


def _run(console: Console, request: _Request, attempts: list["Attempt"], everything: bool) -> None:
    """Run the experiments; ``attempts`` holds those that have ended, also after an interruption."""
    total = len(request.experiments)
    width = max(len(experiment.name) for experiment in request.experiments)
    with progress(console) as (bar, task):
        overall = bar.add_task("all".ljust(width), total=total, note="") if everything and total > 1 else None
        for number, experiment in enumerate(request.experiments):
            bar.reset(task, total=1.0, description=experiment.name.ljust(width), note="")

            def report_progress(share: float, note: str, number: int = number) -> None:
                share = min(max(share, 0.0), 1.0)
                bar.update(task, completed=share, note=note)
                if overall is not None:
                    bar.update(overall, completed=number + share, note=f"{number} of {total} done")

            report_progress(0.0, "")
            start = time.monotonic()
            attempt = (_try_one if everything else _run_one)(experiment, request, report_progress)
            attempts.append(attempt)
            if everything:
                took = f"{time.monotonic() - start:.0f} s"
                line = Text(f"{number + 1:>3}/{total}  {experiment.name:<{width}}  ")
                console.print(line + _coloured(attempt.state) + f"  {attempt.reason or took}")


def _try_one(
    experiment: "Experiment", request: _Request, progress: Callable[[float, str], None]
) -> "Attempt":
    """Run one of many: neither missing data nor an error ends the others."""
    from laconic.papers import DataMissingError
    from laconic.papers._write import Attempt

    missing = experiment.missing(request.data)
    if missing:
        return Attempt(experiment, reason=f"needs {', '.join(missing)}")
    try:
        return _run_one(experiment, request, progress)
    except DataMissingError as error:
        return Attempt(experiment, reason=str(error))
    except Exception as error:
        log = request.out / f"{experiment.name}.error.txt"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        reason = f"{type(error).__name__}: {' '.join(str(error).split())} (see {log.name})"
        return Attempt(experiment, reason=reason, failed=True)


def _run_one(
    experiment: "Experiment", request: _Request, progress: Callable[[float, str], None]
) -> "Attempt":
    """Run an experiment and write its results, or read those of an earlier run."""
    from laconic.papers import DataMissingError, Settings
    from laconic.papers._write import Attempt, forget, key_of, read, write

    missing = experiment.missing(request.data)
    if missing:
        there = "" if request.data is None else f" in {request.data}"
        raise DataMissingError(f"{experiment.name} needs {', '.join(missing)}{there}; {_WHERE}")
    key = key_of(experiment, request.quick, request.data)
    stored = read(request.out, key) if request.resume else None
    if stored is not None:
        return Attempt(experiment, stored, reason="kept from an earlier run")
    checkpoint = request.out / "checkpoints" / f"{experiment.name}-{key.fingerprint}"
    if not request.resume:
        shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir(parents=True, exist_ok=True)
    forget(request.out, experiment.name)
    start = time.monotonic()
    report = experiment.run(Settings(request.quick, request.data, checkpoint, progress))
    record = write(request.out, experiment, key, report, time.monotonic() - start)
    shutil.rmtree(checkpoint)
    with suppress(OSError):  # others may still have theirs there
        checkpoint.parent.rmdir()
    (request.out / f"{experiment.name}.error.txt").unlink(missing_ok=True)
    return Attempt(experiment, record)


def _report_one(console: Console, request: _Request, attempt: "Attempt", as_json: bool) -> None:
    from laconic.papers._page import duration
    from laconic.papers._write import described

    about, record = attempt.experiment, attempt.record
    assert record is not None
    if as_json:
        print_json(described(about, record))
    else:
        console.print(f"{about.name}: {about.figure} of {about.paper}\n{about.shows}")
        if about.stands_for:
            console.print(about.stands_for)
        console.print(_verdicts(record))
    for note in record.notes:
        console.print(f"note: {note}")
    kept = f"{attempt.reason} with the same settings; it took " if attempt.reason else ""
    console.print(f"{record.counts()} ({kept}{duration(record.seconds)})")
    console.print(f"written to {request.out}: {about.name}.png, {about.name}.csv, {about.name}.json")


def _verdicts(record: "Record") -> Table:
    table = table_like()
    table.show_lines = True
    table.add_column("outcome", no_wrap=True)
    for head in ("the paper", "this run", "why"):
        table.add_column(head, ratio=1, overflow="fold")
    for verdict in record.verdicts:
        table.add_row(_coloured(verdict.outcome), verdict.claim, verdict.got, verdict.why)
    return table


def _report_all(console: Console, request: _Request, attempts: Sequence["Attempt"], as_json: bool) -> None:
    from laconic.papers._page import counts_of
    from laconic.papers._write import described

    _write_pages(request, attempts)
    if as_json:
        print_json(
            [
                described(attempt.experiment, attempt.record)
                if attempt.record
                else {"name": attempt.experiment.name, "outcome": attempt.state, "reason": attempt.reason}
                for attempt in attempts
            ]
        )
    for attempt in attempts:
        if attempt.record is not None and attempt.bad:
            console.print(f"\n{attempt.experiment.name} disagrees:")
            console.print(_verdicts(attempt.record))
    console.print(f"\n{counts_of(attempts)}.")
    if any(attempt.state == "not run" for attempt in attempts):
        console.print(f"Data are missing: {_WHERE}.")
    console.print(f"written to {request.out}: index.html, and a .png, .csv and .json of each experiment")
    if all(attempt.state == "not run" for attempt in attempts):
        raise ValueError("nothing was run: the data of every experiment are missing")


def _write_pages(request: _Request, attempts: Sequence["Attempt"], index: bool = True) -> None:
    """The page beside the results, and the one that stands alone."""
    from laconic._html import write_text
    from laconic.bench.machine import describe_machine
    from laconic.papers._page import render
    from laconic.papers._write import Attempt

    rest = request.experiments[len(attempts) :]
    shown = [*attempts, *(Attempt(experiment, reason="interrupted") for experiment in rest)]
    if index:
        write_text(render(shown, request.out), request.out / "index.html")
    if request.html is not None:
        write_text(render(shown, request.out, links=False, machine=describe_machine()), request.html)


def _list(console: Console, experiments: Iterable["Experiment"], data: Path | None, as_json: bool) -> None:
    if as_json:
        fields = ("name", "paper", "figure", "shows", "needs", "stands_for")
        print_json([{field: getattr(experiment, field) for field in fields} for experiment in experiments])
        return
    for paper, group in groupby(experiments, lambda experiment: experiment.paper):
        table = table_like()
        table.add_column("name", no_wrap=True)
        table.add_column("what it shows", ratio=1, overflow="fold")
        for experiment in group:
            about = Text(f"{experiment.figure}: ", style="bold").append(experiment.shows, style="not bold")
            missing = experiment.missing(data)
            if missing:
                about.append(f" Missing: {', '.join(missing)}.", style="not bold yellow")
            table.add_row(experiment.name, about)
        console.print(paper)
        console.print(table)


def _coloured(state: str) -> Text:
    return Text(state, style=_COLOURS[state])
