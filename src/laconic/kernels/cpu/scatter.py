"""Adding kept numbers to vectors, by loops that numba compiles at their first use.

Every place of a vector has one thread, and there the order of additions is fixed: no result depends on the
number of threads. A product is rounded before it is added; LLVM fuses the two only where it is told to.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu.threads import in_threads

_WORTH = 1 << 14
"""Additions a thread."""


@loop
def _add_rows(out, positions, values, first, last):
    """``out[row, positions[row, node]] += values[row, node]``; False where a position is outside."""
    fits = True
    d, kept = out.shape[1], positions.shape[2]
    for row in range(first, last):
        for node in range(positions.shape[1]):
            for i in range(kept):
                place = positions[row, node, i]
                if place < 0 or place >= d:
                    fits = False
                else:
                    out[row, place] += values[row, node, i]
    return fits


def add_rows(out, positions, values, threads):
    """As ``scatter_add_``, of (rows, d), (rows, nodes, k) and (rows, nodes, k)."""
    rows = out.shape[0]
    _split(
        lambda first, last: _add_rows(out, positions, values, first, last),
        rows,
        min(threads, rows, positions.size // _WORTH),
    )


def _split(work, size, threads):
    """``work(first, last)`` on parts of [0, size); raises where one says that positions do not fit."""
    threads = max(1, threads)
    fits = [True] * threads

    def part(thread):
        fits[thread] = work(size * thread // threads, size * (thread + 1) // threads)

    in_threads(part, threads)
    _require(all(fits))


def _require(fits):
    if not fits:
        raise IndexError(
            "a position lies outside the vector or out of order; positions are ascending and count from the "
            "start of their vector or segment (what fitted has been added)"
        )
