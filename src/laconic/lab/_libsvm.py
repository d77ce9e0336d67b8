"""Reading of LibSVM text files, plain or compressed."""

import bz2
import codecs
import gzip
import lzma
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from laconic.lab._data import DataError, as_rows, as_targets, naming
from laconic.lab._types import CSR, Array

_ARCHIVES: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
"""The first bytes of compressed files."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MOST_COLUMNS = 20_000_000
_LARGE = 500_000_000


def load_libsvm(path: str | os.PathLike[str]) -> tuple[CSR, Array]:
    """Read a LibSVM (svmlight) text file, also one compressed by gzip, bzip2 or xz.

    Compression is known by the file's first bytes, whatever its name. Indices may start at 0 or at 1: they
    are taken to start at 1 where no line uses index 0.

    Args:
        path: the file; one line a row, ``label index:value index:value ...``, indices ascending.

    Returns:
        The rows as a float64 CSR array (N, d), and the labels, float64 (N,).

    Raises:
        DataError: the file is missing, unreadable, empty, malformed (the line is named), not finite, or
            uses an index whose vectors are too long to be held.
    """
    # It takes longer to import than everything else together.
    from sklearn.datasets import load_svmlight_file

    file = Path(path)
    if not file.is_file():
        what = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise DataError(
            f"{file} {what}; pass the path of a LibSVM text file"
            " (https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/)"
        )
    size = file.stat().st_size
    if size > _LARGE:
        warnings.warn(
            f"{file} has {size / 1e9:.2g} GB: reading it takes minutes, and several times as much memory",
            stacklevel=2,
        )
    try:
        with _open(file) as text:
            X, y = load_svmlight_file(text, dtype=np.float64, zero_based="auto")
    except DataError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{file} cannot be read ({_one_line(error)}); fetch it again") from error
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{file}, {_first_bad_line(file) or f'not LibSVM text: {_one_line(error)}'}"
        ) from error
    if X.shape[1] > _MOST_COLUMNS:
        raise DataError(
            f"{file} uses index {X.shape[1]}: vectors of that length take"
            f" {8 * X.shape[1] / 1e9:.2g} GB, and the lab holds several for every node;"
            f" use at most {_MOST_COLUMNS:,} columns"
        )
    with naming(file):
        return as_rows(X), as_targets(y, X.shape[0])


def _open(file: Path) -> IO[bytes]:
    """The text of a file, decompressed, without a byte-order mark."""
    with file.open("rb") as raw:
        first = raw.read(8)
    opener = next((opener for magic, opener in _ARCHIVES if first.startswith(magic)), None)
    stream: IO[bytes] = file.open("rb") if opener is None else opener(file)
    try:
        # Several small reads: a GzipFile has no peek that would be sure to see three bytes.
        start = stream.read(3)
        if start.startswith(_UTF16):
            raise DataError(f"{file} is UTF-16 text; save it as UTF-8 or ASCII")
        if start != codecs.BOM_UTF8:
            stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _first_bad_line(file: Path) -> str | None:
    """The first line of a LibSVM file that cannot be read, with the reason; None if none is found.

    scikit-learn's parser, which is fast, does not count lines.
    """
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            problem = _complaint(line)
            if problem is not None:
                return f"line {number}: {problem}; correct or delete the line"
    return None


def _complaint(line: bytes) -> str | None:
    label, *features = line.split(b"#", 1)[0].split() or (b"0",)
    try:
        float(label)
    except ValueError:
        return f"the label {_excerpt(label)} is not a number"
    previous = -1
    for feature in features:
        index, _, value = feature.partition(b":")
        if index == b"qid":
            continue
        try:
            position = int(index)
            float(value)
        except ValueError:
            return f"{_excerpt(feature)} is not index:value"
        if not 0 <= position < 2**31:
            return f"the index of {_excerpt(feature)} is out of range"
        if position <= previous:
            return f"the index of {_excerpt(feature)} does not ascend (it follows {previous})"
        previous = position
    return None


def _excerpt(token: bytes, limit: int = 30) -> str:
    text = token.decode("utf-8", errors="replace")
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
