"""The kind of a group: which columns its messages have, and of what dtype."""

from dataclasses import dataclass

import torch

from laconic.formats.grids import Grid

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes of numbers, by their code on the wire."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64; float32 for float32, float16 and bfloat16; TypeError for anything else."""
    if dtype == torch.float64:
        return torch.float64
    if dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.float32
    raise TypeError(f"laconic works on float16, bfloat16, float32 and float64 tensors, not on {dtype}")


@dataclass(frozen=True)
class Kind:
    """What segments of unlike lengths have in common where they share a group.

    Args:
        dtype: dtype of the numbers; the accumulation dtype where values are codes.
        listed: whether positions are kept (else every coordinate is).
        counted: whether the number of positions used varies by message.
        seeded: whether the positions follow from shared randomness, so that they carry no information.
        origin: whether seed, round and node of the draw travel instead of the positions.
        grid: the levels of codes, or None.
        scale: whether there are scales, one for each block of ``block`` columns, or one a segment.
        low: whether there are as many lowest magnitudes.
        block: columns a scale; None: all of a segment.
        adaptive: whether positions travel in blocks that adapt to their density, so that the size varies.
    """

    dtype: torch.dtype
    listed: bool = False
    counted: bool = False
    seeded: bool = False
    origin: bool = False
    grid: Grid | None = None
    scale: bool = False
    low: bool = False
    block: int | None = None
    adaptive: bool = False
