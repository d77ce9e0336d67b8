"""Tables of integers and of segments' tiles on the device, made once for equal contents."""
# mypy: ignore-errors
# Belongs to the kernels, which are not typed.

from functools import lru_cache

import numpy as np
import torch

from laconic.kernels.gpu._plan import numbered

TILE = 1024
"""Numbers of a segment that a program works on."""


def integers(array, device):
    """An array of integers as int64 on the device. Equal ones are copied once."""
    return _copied(np.ascontiguousarray(array, np.int64).tobytes(), device)


def tiles_of(numels, device, tile=TILE):
    """int32 (tiles, 2): of each tile of each segment its segment, and its number there."""
    return _tiles(np.ascontiguousarray(numels, np.int64).tobytes(), device, tile)


def starts_of(vectors, device):
    """int64 (S,), where each segment begins, counted from the first number of ``vectors.array``."""
    return integers(vectors.starts, device)


@lru_cache(maxsize=1024)
def _copied(data, device):
    table = (
        torch.frombuffer(bytearray(data), dtype=torch.int64)
        if data
        else torch.empty(0, dtype=torch.int64, device="cpu")
    )
    return ready(table.to(device))


@lru_cache(maxsize=256)
def _tiles(data, device, tile):
    counts = -(-np.frombuffer(data, np.int64) // tile)
    return ready(numbered(counts, 1).to(device))


def ready(table):
    """The table, once it is there: another stream may be the next to read it."""
    if table.device.type != "cpu":
        torch.cuda.current_stream(table.device).synchronize()
    return table
