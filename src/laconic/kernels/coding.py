"""The functions of ``packing`` that carry the bulk of a message, by compiled loops.

The loops are compiled, or loaded from numba's cache, at the first call; :func:`warm_up` does it ahead.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from laconic.kernels import packing
from laconic.kernels._choice import compiled_or_plain
from laconic.kernels._narrow import CODE_DTYPES, code_room
from laconic.kernels.packing import RICE_BLOCK, RICE_WIDTH, Bytes, Codes, Numbers, get_bits, put_bits

Words = npt.NDArray[np.uint64]


P = ParamSpec("P")
R = TypeVar("R")


def _compiled(module: str) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[P, R]]:
    """A function of a module of loops; where these cannot be had, ``packing``'s of the same name."""

    def chosen(function: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
        plain: Callable[P, R] = getattr(packing, function.__name__)

        @wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> R:
            return compiled_or_plain(
                module,
                lambda loops: function(loops, *arguments, **options),
                lambda: plain(*arguments, **options),
            )

        return run

    return chosen


def warm_up() -> None:
    """Compile the loops, so that no message has to wait for them."""
    positions = np.arange(0, 200, 2)
    for put, get, numbers in (
        (put_bitmap, get_bitmap, ()),
        (put_elias_fano, get_elias_fano, (1,)),
        (put_cells, get_cells, (2, 1)),
    ):
        get(put(positions, 200, *numbers), 200, 100, *numbers)
    params, low, high = put_rice(positions, 200)
    get_rice(rice_lows(params, 100)[0], low, high, 200, 100)
    for kind in CODE_DTYPES.values():
        codes, top = np.ones(8, kind), int(np.iinfo(kind).max)
        get_codes(put_codes(codes, 0, 4, 1, 2), 0, 4, 1, 2, 8, top)
        # No grid of so few symbols that they share a byte has so many levels.
        if kind is not np.int32:
            get_codes(put_codes(codes, 0, 3, 5, 8), 0, 3, 5, 8, 8, top)


def _room(bits: int) -> Words:
    # One word at least, because loops look at the first before they know whether they need it.
    return np.zeros(max(1, (bits + 63) // 64), np.uint64)


def _load(data: Bytes, bits: int) -> Words:
    """The bytes as words, once the bits after the first ``bits`` are known to be zeros."""
    if bits % 8 and data[-1] >> bits % 8:
        raise ValueError("the bits that fill the last byte are not zero")
    words = _room(8 * data.size)
    words.view(np.uint8)[: data.size] = data
    return words


def _store(words: Words, bits: int) -> Bytes:
    return words.view(np.uint8)[: (bits + 7) // 8]


@_compiled("coding")
def check_ascending(loops: Any, positions: Numbers, d: int) -> None:
    """Refuse positions that do not ascend within [0, d)."""
    if not loops.ascend(positions, d):
        raise ValueError(f"the positions do not ascend within [0, {d})")


def _check_ones(loops: Any, words: Words, count: int) -> None:
    if (found := loops.count_ones(words)) != count:
        raise ValueError(f"{found} bits are ones, not {count}")


@_compiled("coding")
def put_bitmap(loops: Any, positions: Numbers, d: int) -> Bytes:
    """One bit for each coordinate."""
    check_ascending(positions, d)
    words = _room(d)
    loops.put_ones(positions, words)
    return _store(words, d)


@_compiled("coding")
def get_bitmap(loops: Any, data: Bytes, d: int, k: int) -> Numbers:
    """The k positions marked among d."""
    words = _load(data, d)
    _check_ones(loops, words, k)
    positions = np.empty(k, np.int64)
    loops.get_ones(words, positions)
    return positions


@_compiled("coding")
def put_elias_fano(loops: Any, positions: Numbers, d: int, low: int) -> Bytes:
    """The low bits of each position, then a one at ``(position >> low) + number`` for each."""
    check_ascending(positions, d)
    k = positions.size
    bits = k + ((d - 1) >> low)
    high, words = _room(bits), _room(k * low)
    loops.put_high(positions, low, high)
    loops.put_low(positions, low, words)
    return np.concatenate((_store(words, k * low), _store(high, bits)))


@_compiled("coding")
def get_elias_fano(loops: Any, data: Bytes, d: int, k: int, low: int) -> Numbers:
    """The k positions in [0, d)."""
    cut = (k * low + 7) // 8
    words, high = _load(data[:cut], k * low), _load(data[cut:], k + ((d - 1) >> low))
    _check_ones(loops, high, k)
    positions = np.empty(k, np.int64)
    if not loops.get_elias_fano(high, words, low, positions) or (k and positions[-1] >= d):
        raise ValueError(f"the positions do not ascend within [0, {d})")
    return positions


@_compiled("coding")
def put_cells(loops: Any, positions: Numbers, d: int, length: int, count: int) -> Bytes:
    """Each position within its cell, where every cell of ``length`` coordinates holds ``count``."""
    check_ascending(positions, d)
    places = positions - np.arange(positions.size) // count * length
    if places.min(initial=0) < 0 or places.max(initial=0) >= length:
        raise ValueError(f"the positions do not lie {count} in each {length}")
    width = (length - 1).bit_length()
    words = _room(places.size * width)
    loops.put_low(places, width, words)
    return _store(words, places.size * width)


@_compiled("coding")
def get_cells(loops: Any, data: Bytes, d: int, k: int, length: int, count: int) -> Numbers:
    """The k positions in [0, d)."""
    width = (length - 1).bit_length()
    positions = np.empty(k, np.int64)
    if loops.get_low(_load(data, k * width), width, positions) >= length:
        raise ValueError(f"a position lies outside its cell of {length} coordinates")
    positions += np.arange(k) // count * length
    check_ascending(positions, d)
    return positions


@_compiled("coding")
def put_rice(loops: Any, positions: Numbers, d: int) -> tuple[Bytes, Bytes, Bytes]:
    """The gaps between positions, each block with its own number of low bits."""
    check_ascending(positions, d)
    gaps = np.empty_like(positions)
    loops.gaps_between(positions, gaps)
    lows = np.zeros(-(-gaps.size // RICE_BLOCK), np.int64)
    low_bits, high_bits = loops.choose_low(gaps, RICE_BLOCK, (1 << RICE_WIDTH) - 1, lows)
    words, high = _room(low_bits), _room(high_bits)
    loops.put_rice(gaps, RICE_BLOCK, lows, words, high)
    return put_bits(lows, RICE_WIDTH), _store(words, low_bits), _store(high, high_bits)


def rice_lows(data: Bytes, k: int) -> tuple[Numbers, int]:
    """The numbers of low bits, and the low bits of all gaps together."""
    lows = get_bits(data, RICE_WIDTH, -(-k // RICE_BLOCK))
    return lows, _low_bits(lows, k)


def _low_bits(lows: Numbers, k: int) -> int:
    return int(lows.sum()) * RICE_BLOCK - int(lows[-1]) * (-k % RICE_BLOCK)


@_compiled("coding")
def get_rice(loops: Any, lows: Numbers, low: Bytes, high: Bytes, d: int, k: int) -> Numbers:
    """The k positions in [0, d)."""
    low_bits = _low_bits(lows, k)
    words, ones = _load(low, low_bits), _load(high, 8 * high.size)
    _check_ones(loops, ones, k)
    if high[-1] == 0:
        raise ValueError("bytes of zeros follow the last gap")
    positions = np.empty(k, np.int64)
    if loops.get_rice(ones, words, RICE_BLOCK, lows, d, positions) >= d:
        raise ValueError(f"the positions do not ascend within [0, {d})")
    return positions


@_compiled("codes")
def put_codes(loops: Any, codes: Codes, base: int, symbols: int, shared: int, width: int) -> Bytes:
    """Codes as symbols, ``shared`` to a group of ``width`` bits."""
    k = codes.size
    if shared > 1:
        return _put_shared(loops, codes, base, symbols, shared)
    words = _room(k * width)
    if not loops.put_codes(codes, base, symbols % 2 == 1, symbols, width, words):
        raise ValueError(f"the codes are none of {symbols} symbols")
    return _store(words, k * width)


def _put_shared(loops: Any, codes: Codes, base: int, symbols: int, shared: int) -> Bytes:
    data = np.empty(-(-codes.size // shared), np.uint8)
    if not loops.put_groups(codes, base, symbols % 2 == 1, symbols, shared, data):
        raise ValueError(f"the codes are none of {symbols} symbols")
    return data


@_compiled("codes")
def get_codes(
    loops: Any, data: Bytes, base: int, symbols: int, shared: int, width: int, k: int, top: int
) -> Codes:
    """The k codes, in the dtype of codes up to ``top``."""
    codes: Codes = code_room((k,), top).numpy()
    if shared > 1:
        good = loops.get_groups(data, base, symbols % 2 == 1, symbols, shared, codes)
    else:
        good = loops.get_codes(_load(data, k * width), base, symbols % 2 == 1, symbols, width, codes)
    if not good:
        raise ValueError(f"the codes are none of {symbols} symbols")
    return codes
