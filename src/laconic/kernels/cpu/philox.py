"""Philox-4x32-10 for many counters at a time, compiled by numba at its first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._jit import inner_loop, loop

U = np.uint64
_M0, _M1 = U(0xD2511F53), U(0xCD9E8D57)
_MASK, _HALF = U(0xFFFFFFFF), U(32)
PIECE = 1024


@inner_loop
def words(source, first, out):
    """The words of ``out.size // 4`` counters from ``first`` on, uint32; ``source`` as ``Stream.sources``."""
    segment, node, round_ = source[20] & _MASK, source[21] & _MASK, source[22] & _MASK
    # Words stay in 64-bit lanes and both loops are simple, so that they become vector code.
    for j in range(out.size // 4):
        c0, c1, c2, c3 = (first + U(j)) & _MASK, segment, node, round_
        for r in range(10):
            p0, p1 = _M0 * (c0 & _MASK), _M1 * (c2 & _MASK)
            c0, c2 = (p1 >> _HALF) ^ c1 ^ source[2 * r], (p0 >> _HALF) ^ c3 ^ source[2 * r + 1]
            c1, c3 = p1 & _MASK, p0 & _MASK
        out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3] = c0, c1, c2, c3


@loop
def fill(source, factor, drawn, out):
    """``factor`` times the word of each coordinate, in the product's dtype; ``drawn`` is room for words."""
    for start in range(0, out.size, PIECE):
        part = out[start : start + PIECE]
        words(source, U(start // 4), drawn[: (part.size + 3) // 4 * 4])
        for i in range(part.size):
            part[i] = drawn[i] * factor
