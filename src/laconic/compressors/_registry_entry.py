"""Entry of the registry of compressors: usage, constructor, and readers of arguments from text."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laconic._nearest import look_up
from laconic.compressors._base import Compressor

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Entry:
    """One name: how it is written, what the arguments are read with, what it makes.

    Args:
        usage: the name with its arguments.
        make: the compressor from the arguments that were read.
        readers: one for each argument, in order; those without a given argument fall to defaults.
        required: how many arguments must be given.
    """

    usage: str
    make: Callable[..., Compressor]
    readers: tuple[Callable[[str], object], ...] = ()
    required: int = 0


def count_or_fraction(text: str) -> float:
    """An int where it is written as one: 5 counts, 0.5 is a share."""
    return int(text) if text.isdecimal() else float(text)


def dtype_named(text: str) -> torch.dtype:
    """A dtype by its short name."""
    return look_up("dtype", text, _DTYPES)


def truth(text: str) -> bool:
    """True or false."""
    return look_up("truth value", text, {"true": True, "false": False})
