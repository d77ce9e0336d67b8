"""Bit packing of the codes of all segments of a group as one stream; compaction of columns.

Of every segment the first ``used`` of its columns travel; the others hold the code of 0, or what is given.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.kernels._code_dtypes import empty_codes
from laconic.kernels._dispatch import dispatch
from laconic.kernels.cpu.threads import get_threads, in_threads
from laconic.kernels.reference.group_codes import get_codes_reference, put_codes_reference
from laconic.kernels.tables import Bytes, Integers, columns_used

_TILE = 3840
"""Symbols whose bytes are whole ones, whatever the width; the loops' ``TILE``."""
_WORTH = 1 << 17
"""Codes a thread."""
_LARGEST_BASE = 1 << 28


def code_bytes(used: int, shared: int, width: int) -> int:
    """Bytes of so many codes, ``shared`` to a group of ``width`` bits."""
    return (-(-used // shared) * width + 7) // 8


def put_codes(
    codes: Tensor | npt.NDArray[np.signedinteger],
    bases: Integers | None,
    bounds: Integers,
    used: Integers | None,
    symbols: int,
    shared: int,
    width: int,
    out: Bytes,
) -> None:
    """Write the symbols of the codes that are used, one after another.

    Args:
        codes: int8, int16 or int32 (K,). Those on a device are packed there.
        bases: (S,) the number of the level below each segment's lowest; None: 0.
        bounds: (S + 1,): segment s owns the columns from ``bounds[s]`` to ``bounds[s + 1]``.
        used: (S,) of which only the first ones are used; None: all are.
        symbols: how many there are; odd where 0 is a code.
        shared: symbols a group; above 1 a group is one byte.
        width: bits a group.
        out: uint8 (:func:`code_bytes`,).

    Raises:
        ValueError: where a code is none of the symbols.

    Example:
        >>> out = np.zeros(1, np.uint8)
        >>> put_codes(torch.tensor([1, -1, 1], dtype=torch.int8), None, np.array([0, 3]), None, 2, 1, 1, out)
        >>> out
        array([2], dtype=uint8)
    """
    row = codes.detach() if isinstance(codes, Tensor) else torch.from_numpy(codes)
    levels, counts = _columns(bases, bounds, used)
    k = int(counts.sum())
    if row.shape != (bounds[-1],) or out.shape != (code_bytes(k, shared, width),):
        raise ValueError(
            f"{bounds[-1]} codes, of which {k} are used, take {code_bytes(k, shared, width)} bytes; got "
            f"{tuple(row.shape)} and {out.shape}"
        )
    if row.device.type != "cpu":
        torch.from_numpy(out).copy_(_put_on_device(row, levels, bounds, counts, symbols, shared, width))
        return
    numbers = row.contiguous().numpy()

    def reference() -> None:
        packed = put_codes_reference(row, levels, bounds, counts, symbols, shared, width)
        torch.from_numpy(out).copy_(packed)

    def compiled(cpu: Any) -> None:
        base, starts, ends = _stretches(levels, bounds, counts)

        def work(first: int, last: int) -> bool:
            room = np.empty(_TILE, np.int32), np.empty(_TILE, np.uint8)
            return bool(cpu.put(numbers, base, starts, ends, symbols, shared, width, *room, first, last, out))

        _require(_in_shares(work, k), symbols)

    dispatch("group_codes", compiled, reference)


def get_codes(
    data: Bytes,
    bases: Integers | None,
    bounds: Integers,
    used: Integers | None,
    symbols: int,
    shared: int,
    width: int,
    top: int,
) -> Tensor:
    """The codes that :func:`put_codes` wrote.

    Args:
        data: uint8 (:func:`code_bytes`,).
        bases, bounds, used, symbols, shared, width: as when they were written.
        top: the number of positive levels.

    Returns:
        (K,) in the narrowest of int8, int16 and int32 that holds ``top``. Columns that are not used hold 0,
        or 1 where 0 is no code.

    Raises:
        ValueError: for bytes that no codes make, and for bases from which codes could pass ``top``.
    """
    levels, counts = _columns(bases, bounds, used)
    k = int(counts.sum())
    if data.shape != (code_bytes(k, shared, width),):
        raise ValueError(f"{k} codes take {code_bytes(k, shared, width)} bytes, not {data.size}")
    if (k * width if shared == 1 else 0) % 8 and data[-1] >> k * width % 8:
        raise ValueError("the bits that fill the last byte are not zero")
    if levels.min(initial=0) < 0 or levels.max(initial=0) > max(0, top - symbols // 2):
        raise ValueError(f"the codes start above a level from which {symbols} symbols pass level {top}")
    codes = empty_codes((int(bounds[-1]),), top)

    def reference() -> None:
        given = torch.from_numpy(data.copy())
        codes.copy_(get_codes_reference(given, levels, bounds, counts, symbols, shared, width, top))

    def compiled(cpu: Any) -> None:
        base, starts, ends = _stretches(levels, bounds, counts)
        digits = _digits(symbols, shared)
        # The loop reads words of eight bytes.
        source = np.ascontiguousarray(data) if data.size >= 8 else np.append(data, np.zeros(8, np.uint8))
        numbers = codes.numpy()

        def work(first: int, last: int) -> bool:
            room = digits, np.zeros(_TILE, np.int32), np.zeros(_TILE + 8, np.uint8)
            return bool(
                cpu.get(source, base, starts, ends, symbols, shared, width, *room, first, last, numbers)
            )

        _require(_in_shares(work, k), symbols)
        if used is not None:
            _fill_unused(codes, bounds, counts, 1 - symbols % 2)

    dispatch("group_codes", compiled, reference)
    return codes


def _columns(bases: Integers | None, bounds: Integers, used: Integers | None) -> tuple[Integers, Integers]:
    counts = np.diff(bounds) if used is None else used
    return np.zeros_like(counts) if bases is None else bases, counts


def _stretches(bases: Integers, bounds: Integers, used: Integers) -> tuple[Integers, Integers, Integers]:
    """Of columns of one base without a gap: the base, the first column, and where their symbols end."""
    ends = np.cumsum(used)
    if not bases.any() and ends[-1] == bounds[-1]:
        return bases[:1], bounds[:1], ends[-1:]
    return np.minimum(bases, _LARGEST_BASE), np.ascontiguousarray(bounds[:-1]), ends


def _in_shares(work: Callable[[int, int], bool], symbols: int) -> bool:
    """``work(first, last)`` on shares that start with whole tiles; whether all say yes."""
    tiles = -(-symbols // _TILE)
    threads = max(1, min(get_threads(), symbols // _WORTH))
    good = [True] * threads

    def share(thread: int) -> None:
        first, last = tiles * thread // threads * _TILE, tiles * (thread + 1) // threads * _TILE
        if first < symbols:
            good[thread] = work(first, min(last, symbols))

    in_threads(share, threads)
    return all(good)


def _require(good: bool, symbols: int) -> None:
    if not good:
        raise ValueError(f"the codes are none of {symbols} symbols")


@lru_cache(maxsize=8)
def _digits(symbols: int, shared: int) -> npt.NDArray[np.uint64]:
    """Of each byte its digits as bytes of a word, whose highest is not 0 where something is left over."""
    words = np.zeros((256, 8), np.uint8)
    if shared > 1:
        byte = np.arange(256)[:, None]
        words[:, :shared] = byte // symbols ** np.arange(shared) % symbols
        words[:, 7] = byte[:, 0] >= symbols**shared
    return words.view("<u8")[:, 0].astype(np.uint64)


def _put_on_device(
    codes: Tensor, bases: Integers, bounds: Integers, used: Integers, symbols: int, shared: int, width: int
) -> Tensor:
    return dispatch(
        "group_codes",
        None,
        lambda: put_codes_reference(codes, bases, bounds, used, symbols, shared, width),
        gpu=lambda gpu: gpu.pack_codes(
            _from_zero(codes, bases, bounds, used, symbols), 0, symbols, shared, width
        ),
        tensor=codes,
    )


def _from_zero(codes: Tensor, bases: Integers, bounds: Integers, used: Integers, symbols: int) -> Tensor:
    """The codes that are used, less their base; raises where one is none of the symbols."""
    segment, _, column = columns_used(bounds, used, codes.device)
    compacted = codes[column].to(torch.int32)
    magnitude = compacted.abs() - torch.from_numpy(bases).to(codes.device, torch.int32)[segment]
    fits = (magnitude >= 1) & (magnitude <= symbols // 2)
    if symbols % 2:
        fits |= compacted == 0
    _require(bool(fits.all()), symbols)
    return torch.where(compacted == 0, 0, magnitude.copysign(compacted).to(torch.int32))


def _fill_unused(columns: Tensor, bounds: Integers, used: Integers, fill: int | float) -> None:
    kept = torch.from_numpy(np.diff(bounds)).to(columns.device)
    counts, starts = (torch.from_numpy(a).to(columns.device) for a in (used, bounds[:-1]))
    number = torch.arange(columns.numel(), device=columns.device) - starts.repeat_interleave(kept)
    columns.masked_fill_(number >= counts.repeat_interleave(kept), fill)


def compact(columns: Tensor, bounds: Integers, used: Integers) -> Tensor:
    """The columns that are used, without gaps: (K,) to (sum of used,), of any dtype on any device."""
    return columns[columns_used(bounds, used, columns.device)[2]]


def spread(numbers: Tensor, bounds: Integers, used: Integers, fill: int | float) -> Tensor:
    """What :func:`compact` made, where it was: (sum of used,) to (K,), ``fill`` between.

    Example:
        >>> spread(torch.tensor([1.0, 2.0, 3.0]), np.array([0, 2, 5]), np.array([1, 2]), 0.0)
        tensor([1., 0., 2., 3., 0.])
    """
    columns = numbers.new_full((int(bounds[-1]),), fill)
    columns[columns_used(bounds, used, numbers.device)[2]] = numbers
    return columns
