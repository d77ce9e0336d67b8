"""Text corpus of the demo: the sources of Python's standard library."""

import sysconfig
from pathlib import Path

import torch
from torch import Tensor

EVERY = 20
"""One file in so many, in the order of their names, is for validation."""


def read_corpus(folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """The standard library's top-level modules as bytes, for training and for validation.

    95 % of the files are for training, 5 % for validation, by the order of their names; none is in both.

    Args:
        folder: where to look for ``*.py``; by default the standard library.

    Returns:
        Two uint8 vectors.

    Raises:
        FileNotFoundError: where the folder has too few files, as in a Python without sources.
    """
    place = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    files = sorted(place.glob("*.py"), key=lambda path: path.name)
    if len(files) < EVERY:
        raise FileNotFoundError(
            f"{place} has {len(files)} Python files; the demo needs the standard library's sources"
        )
    train, held = bytearray(), bytearray()
    for number, path in enumerate(files, start=1):
        (held if number % EVERY == 0 else train).extend(path.read_bytes())
    return torch.frombuffer(train, dtype=torch.uint8), torch.frombuffer(held, dtype=torch.uint8)


def share(text: Tensor, rank: int, ranks: int) -> Tensor:
    """The stretch of the text that one node sees: consecutive, so that nodes have different files."""
    length = text.numel() // ranks
    return text[rank * length : (rank + 1) * length]


def windows(text: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Sequences of bytes and the bytes that follow each: int64 (len(starts), length) twice."""
    places = starts.unsqueeze(-1) + torch.arange(length + 1)
    cut = text[places].to(torch.int64)
    return cut[:, :-1], cut[:, 1:]


def even_starts(text: Tensor, count: int, length: int) -> Tensor:
    """The starts of ``count`` windows, evenly over the text."""
    return torch.arange(count) * ((text.numel() - length - 1) // count)
