"""Tables for Top-k of a layout on the device, made once for a ``SelectionTable``.

Blocks, and segments that are not cut, of up to 4096 numbers are *short*: a program holds them whole. All
others are *long*, each cut into tiles.
"""
# mypy: ignore-errors
# Belongs to the kernels, which are not typed.

import math
from dataclasses import dataclass

import torch

from laconic.kernels.gpu._launch import LARGEST_TILE, power_of_two

_SIGMAS = 4.5
_HELD = 1024
LONG_FIELDS, SHORT_FIELDS = 9, 6


@dataclass(frozen=True)
class Long:
    """Stretches that are cut into tiles.

    Args:
        table: int64 (stretches, 9): start, length, count, rank of the bound in the sample, where the
            candidates start and how many fit, where the results start, the first tile, and the position of
            the stretch in its segment.
        tiles: int32 (tiles, 2): stretch, and number within it.
        room: candidates of all stretches.
    """

    table: torch.Tensor
    tiles: torch.Tensor
    room: int


@dataclass(frozen=True)
class Short:
    """Segments in blocks that a program holds ``together`` of, in ``length`` lanes each.

    Args:
        table: int64 (segments, 6): start, length, block, kept of each, kept of a shorter last, where the
            results start.
        programs: int32 (programs, 2): segment, and its first block.
        length: a power of two.
    """

    table: torch.Tensor
    programs: torch.Tensor
    length: int

    @property
    def together(self):
        """Blocks a program."""
        return blocks_together(self.length)


def blocks_together(length):
    """How many blocks of ``length`` lanes a program holds."""
    return max(1, _HELD // length)


def plan(cuts, device, tile, samples, short):
    """The long stretches or None, and the groups of short ones; kept in ``cuts.plans``."""
    key = ("gpu", str(device), tile, samples, short)
    if key not in cuts.plans:
        cuts.plans[key] = _made(cuts, device, tile, samples, min(short, LARGEST_TILE))
    return cuts.plans[key]


def _made(cuts, device, tile, samples, short):
    stretches, groups = [], {}
    columns = (cuts.starts, cuts.lengths, cuts.blocks, cuts.counts, cuts.lasts, cuts.offsets[:-1])
    for row in zip(*(column.tolist() for column in columns), strict=True):
        start, length, block, count, last, result = row
        if block <= short:
            groups.setdefault(power_of_two(block), []).append(row)
            continue
        for shift in range(0, length, block):
            size = min(block, length - shift)
            stretches.append((start + shift, size, count if size == block else last, result, shift))
            result += stretches[-1][2]
    made = tuple(_short(rows, lanes, device) for lanes, rows in sorted(groups.items()))
    return _long(stretches, device, tile, samples) if stretches else None, made


def _long(stretches, device, tile, samples):
    rows, room, first = [], 0, 0
    for start, length, count, result, shift in stretches:
        rank, fits = _bound(length, count, samples)
        rows.append((start, length, count, rank, room, fits, result, first, shift))
        room, first = room + fits, first + -(-length // tile)
    tiles = numbered([-(-row[1] // tile) for row in rows], 1)
    return Long(torch.tensor(rows, device="cpu").to(device), tiles.to(device), room)


def _short(rows, lanes, device):
    together = blocks_together(lanes)
    blocks = [-(-length // block) for _, length, block, *_ in rows]
    programs = numbered([-(-count // together) for count in blocks], together)
    return Short(torch.tensor(rows, device="cpu").to(device), programs.to(device), lanes)


def numbered(counts, step):
    """(0, 0), (0, step), ... as many as the first count says, then (1, 0) and so on."""
    count = torch.as_tensor(counts, device="cpu")
    owner = torch.arange(len(counts), device="cpu").repeat_interleave(count)
    first = (count.cumsum(0) - count)[owner]
    number = (torch.arange(len(owner), device="cpu") - first) * step
    return torch.stack((owner, number), dim=1).to(torch.int32)


def _bound(length, count, samples):
    """The bound's rank among the samples, and room for what most probably reaches it."""
    if length <= samples:
        return count, min(length, 2 * count + 1024)
    share = count / length
    rank = math.ceil(samples * share + _SIGMAS * math.sqrt(samples * share * (1 - share)) + 1)
    if rank >= samples:
        return samples, length
    # How many reach the bound varies as the bound's rank does.
    expected = (rank + _SIGMAS * math.sqrt(rank)) / samples * length
    return rank, min(length, math.ceil(expected) + 1024)
