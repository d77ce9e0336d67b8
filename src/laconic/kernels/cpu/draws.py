"""Random positions in segments, compiled by numba at their first use; ``draws`` is what they must equal."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop
from laconic.kernels.cpu.philox import words

U = np.uint64
STEPS = 20
SELECTION, PERMUTATION = U(1), U(3)
_MASK = U(0xFFFFFFFF)
PIECE = 1024


@inner_loop
def _expand(k0, k1, source):
    """The keys of the ten rounds, from the first one's."""
    for r in range(10):
        source[2 * r] = (k0 + U(r) * U(0x9E3779B9)) & _MASK
        source[2 * r + 1] = (k1 + U(r) * U(0xBB67AE85)) & _MASK


@inner_loop
def _source(place, purpose, step, source, key):
    """As ``Stream.sources``, uint64 (23,), of seed, round and node; the segment is left to the caller.

    ``key`` is room for four words.
    """
    _expand(place[0] & _MASK, place[0] >> U(32), source)
    source[20], source[21], source[22] = step, U(0), U(0)
    words(source, purpose, key)
    _expand(U(key[0]), U(key[1]), source)
    source[21], source[22] = place[2] & _MASK, place[1] & _MASK


@inner_loop
def _sides(d):
    """Rows and columns of the rectangle on whose places a segment's permutation works."""
    rows = np.int64(np.sqrt(np.float64(d)))
    while rows * rows < d:
        rows += 1
    return rows, (d + rows - 1) // rows


@loop
def permuted(place, numbers, numels, bounds, sources, added, drawn, out):
    """The first images of each segment's keyed permutation, in its order; see ``Stream.permuted``.

    ``sources`` (STEPS, 23), ``added`` (STEPS, m) and ``drawn`` (4 m,) are room, m at least the rows and the
    columns of every segment's rectangle.
    """
    for step in range(STEPS):
        _source(place, PERMUTATION, U(step), sources[step], drawn[:4])
    for s in range(numels.size):
        d, first = numels[s], bounds[s]
        kept = bounds[s + 1] - first
        if kept == 0:
            continue
        rows, columns = _sides(d)
        for step in range(STEPS):
            changed, other = (rows, columns) if step % 2 == 0 else (columns, rows)
            sources[step, 20] = U(numbers[s])
            words(sources[step], U(0), drawn[: 4 * other])
            for half in range(other):
                word = (U(drawn[4 * half]) >> U(1)) << U(31) | U(drawn[4 * half + 1]) >> U(1)
                added[step, half] = np.int64(word % U(changed))
        for i in range(kept):
            position = i
            while True:
                left = position // columns
                right = position - left * columns
                for step in range(0, STEPS, 2):
                    left += added[step, right]
                    left -= rows if left >= rows else 0
                    right += added[step + 1, left]
                    right -= columns if right >= columns else 0
                position = left * columns + right
                if position < d:
                    break
            out[first + i] = position


@loop
def chosen(place, numbers, numels, p, source, drawn, positions, counts):
    """Where a coordinate's uniform number lies below p (1,) or (numel,); the length in unused places.

    ``source`` (23,) and ``drawn`` (PIECE,) are room.
    """
    _source(place, SELECTION, U(0), source, drawn[:4])
    first = 0
    for s in range(numels.size):
        source[20] = U(numbers[s])
        d, n = numels[s], first
        for start in range(0, d, PIECE):
            size = min(PIECE, d - start)
            words(source, U(start // 4), drawn[: (size + 3) // 4 * 4])
            for i in range(size):
                # Written in any case, so that nothing branches on a coin.
                positions[n] = start + i
                n += np.float64(drawn[i]) * 2.0**-32 < (p[start + i] if p.size > 1 else p[0])
        counts[s] = n - first
        first += d
        for i in range(n, first):
            positions[i] = d


@loop
def gather(reading, bounds, positions, out, bits):
    """The numbers of each segment at some positions; ``bits`` is the memory of ``out`` seen as integers."""
    for s in range(bounds.size - 1):
        numel = reading.bounds[s + 1] - reading.bounds[s]
        x, h = reading.x_starts[s], reading.memory_starts[s]
        for i in range(bounds[s], bounds[s + 1]):
            place = positions[i]
            if place < 0 or place >= numel:
                out[i] = 0.0
                continue
            if reading.short.size > 0:
                bits[i] = np.int32(reading.short[x + place]) << 16
            else:
                out[i] = reading.x[x + place]
            if reading.memory.size > 0:
                out[i] -= reading.memory[h + place]
