"""HTML pages in one file: Jinja2 templates, figures as data URIs; no network, no scripts."""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from laconic import __version__

_NUMBER = re.compile(r"[-+±−]?[\d.,]+(e[-+]?\d+)?\s?[%×kMGT]?")
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Args:
        title: above it.
        heads: of the columns.
        rows: one cell for each column; numbers, as text too, stand at the right.
        note: below it.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What the page of a run shows, in this order.

    Args:
        title: its heading.
        summary: sentences.
        tables: in order.
        figures: PNG images by caption.
        settings: of the run.
        machine: processor, versions.
        notes: what a reader should know.
    """

    title: str
    summary: Sequence[str]
    tables: Sequence[Table]
    figures: Mapping[str, bytes]
    settings: Mapping[str, object]
    machine: Mapping[str, str]
    notes: Sequence[str] = ()


def render(template: str, **values: Any) -> str:
    """The text of a page; all values are escaped."""
    functions = {"data_uri": data_uri, "is_number": is_number, "version": __version__}
    return _templates.get_template(template).render(**functions, **values)


def write_page(page: Page, file: Path) -> None:
    """Write the page of a run; the file appears at once and whole."""
    write_text(render("run.html", page=page), file)


def write_text(text: str, file: Path) -> None:
    """Write beside the file, then rename."""
    partial = file.with_name(file.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def data_uri(png: bytes) -> str:
    """A PNG image as the address of an ``img``."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def is_number(cell: object) -> bool:
    """Whether a cell is a number, with its unit in one letter."""
    return isinstance(cell, (int, float)) or _NUMBER.fullmatch(str(cell)) is not None


def png_of(figure: Any, dpi: int = 150) -> bytes:
    """A figure of matplotlib as a PNG image."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return buffer.getvalue()
