"""Options that several commands have, checked before anything is measured."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_MOST = 1e12
_OUT = "laconic.out"
"""Key in a context's ``meta``: the folder that the command makes."""


def count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: a count from 1 to 1e12, also as 125e6."""
    if value is None:
        return None
    try:
        number = float(value.replace("_", ""))
    except ValueError:
        number = 0.0
    if not 1 <= number <= _MOST:
        raise click.BadParameter(f"{value!r} is not a count such as 125e6.", ctx, param)
    return int(number)


def counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Callback of an option: counts separated by commas, also as 10e6."""
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(number.is_integer() and abs(number) <= _MOST for number in numbers):
        raise click.BadParameter(f"{value!r} is not a list of integers separated by commas.", ctx, param)
    return tuple(map(int, numbers))


def _remember(ctx: click.Context, param: click.Parameter, value: Path) -> Path:  # noqa: ARG001
    ctx.meta[_OUT] = value
    return value


def _check_folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file whose folder is missing or takes no files."""
    if value is None or (value == Path("-") and getattr(param.type, "allow_dash", False)):
        return value
    folder, made = value.absolute().parent, ctx.meta.get(_OUT)
    if not folder.is_dir():
        if made is not None and folder in (made.absolute(), *made.absolute().parents):
            return value
        raise click.BadParameter(
            f"the folder {value.parent} does not exist; make it, or name another file.", ctx, param
        )
    if not value.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"the folder {value.parent} is not writable; name another file.", ctx, param)
    return value


def out_option(default: str, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """``--out``: the folder of a command's results, which the command makes."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        help=help,
        is_eager=True,  # before the files, which may be in this folder
        callback=_remember,
    )


def file_option(*names: str, help: str, dash: bool = False) -> Callable[[Any], Any]:  # noqa: A002
    """An option that names a file to write; one that cannot be written is refused at once."""
    return click.option(
        *names,
        type=click.Path(path_type=Path, dir_okay=False, writable=True, allow_dash=dash),
        metavar="FILE",
        help=help,
        callback=_check_folder,
    )


json_option = file_option(
    "--json", "out", help="Write JSON here as well; - prints it instead of the tables.", dash=True
)
"""For commands that end with :func:`laconic.cli._output.write_record`."""


html_option = file_option(
    "--html", help="Write one page with figures, tables, settings and versions here as well."
)
