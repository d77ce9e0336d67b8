"""Output of the commands: JSON, progress bar, tables, quantities."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click
from filelock import FileLock, Timeout
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_LINE_EVERY_S = 10.0


def make_console(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Console:
    """A console that prints text as it is: what users wrote is no markup, whatever brackets it has."""
    return Console(stderr=stderr, quiet=quiet, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """The value as JSON on standard output; numbers that JSON lacks become null."""
    json.dump(finite(value), sys.stdout, indent=2)
    sys.stdout.write("\n")


def write_record(record: dict[str, Any], out: Path | None) -> bool:
    """Write a benchmark's record where ``--json`` says; whether it was printed in place of the tables."""
    if out == Path("-"):
        print_json(record)
        return True
    if out is not None:
        out.write_text(json.dumps(finite(record), indent=2) + "\n")
    return False


def finite(value: Any) -> Any:
    """The value with NaN and infinity replaced by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress(console: Console) -> Iterator[tuple[Progress, TaskID]]:
    """A live progress bar with one task; without a terminal, plain lines every ten seconds."""
    if not console.is_terminal:
        with _progress_lines() as (lines, task):
            yield lines, task
        return
    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=5) as bar:
        yield bar, bar.add_task("", note="")


@contextmanager
def _progress_lines() -> Iterator[tuple[Progress, TaskID]]:
    """The tasks of a bar as lines on standard error, for logs."""
    err = make_console(stderr=True)
    bar = Progress(console=err, disable=True)
    ended = Event()

    def print_lines() -> None:
        while not ended.wait(_LINE_EVERY_S):
            for task in bar.tasks:
                share = f"{task.percentage:.0f} %" if task.total else ""
                words = (task.description.strip(), share, str(task.fields["note"]))
                err.print("  ".join(word for word in words if word), soft_wrap=True)

    thread = Thread(target=print_lines, name="progress-lines", daemon=True)
    task = bar.add_task("", note="")
    thread.start()
    try:
        yield bar, task
    finally:
        ended.set()
        thread.join()


def hold_folder(out: Path) -> None:
    """Make the output folder and keep other runs out of it while the command runs.

    The system frees the lock of a process that is killed. Its hidden file stays: removal would be a race.

    Raises:
        ValueError: another run has the folder.
    """
    click.get_current_context().with_resource(_held(out))


@contextmanager
def _held(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".laconic.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another run writes to {out}; wait until it has ended, or name another folder with --out"
        ) from error
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def table_like() -> Table:
    """An empty table in the style of all commands, which fits 80 columns."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))


def quantity(bits: float) -> str:
    """A number of bits in three digits: 950, 12.1k, 3.4M."""
    if not bits >= 999.5:
        return f"{bits:.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if float(shown := f"{bits / size:.3g}") < 1000:  # 999,600 is 1M, not 1000k
            return shown + unit
    return f"{float(f'{bits / 1e12:.3g}'):.15g}T"
