"""The kind of a group: its columns and their dtype."""

from dataclasses import dataclass

import torch

from laconic.formats.grids import Grid

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes of numbers, by their code on the wire."""


@dataclass(frozen=True)
class Kind:
    """The columns of a group, and what their numbers are: alike for segments of unlike lengths.

    Args:
        dtype: dtype of the numbers; the accumulation dtype where values are codes.
        has_positions: whether there are positions (else every coordinate is kept).
        has_counts: whether the number of columns in use varies by message.
        seeded: whether the positions follow from shared randomness, so that they carry no information.
        sends_seed: whether seed, round and node of the draw travel instead of the positions.
        grid: the levels of codes, or None.
        has_scale: whether there are scales, one for each block of ``block`` columns, or one a segment.
        has_low: whether there are as many lowest magnitudes.
        block: columns a scale; None: all of a segment.
        adaptive: whether positions travel in blocks that adapt to their density, so that the size varies.
    """

    dtype: torch.dtype
    has_positions: bool = False
    has_counts: bool = False
    seeded: bool = False
    sends_seed: bool = False
    grid: Grid | None = None
    has_scale: bool = False
    has_low: bool = False
    block: int | None = None
    adaptive: bool = False
