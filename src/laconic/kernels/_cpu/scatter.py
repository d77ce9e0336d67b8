"""Adding kept numbers to vectors, by loops that numba compiles at their first use.

Every place of a vector has one thread, and there the order of additions is fixed: no result depends on the
number of threads. A product is rounded before it is added; LLVM fuses the two only where it is told to.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels._cpu._jit import loop
from laconic.kernels._cpu._simd import at_address, brain
from laconic.kernels._cpu.threads import in_threads

_WORTH = 1 << 14
"""Additions a thread."""
_RANGE = 1 << 14
"""Numbers that are summed, scaled and written while in the cache."""


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


@loop
def _add_nodes(
    memory, places, numbers, sizes, weights, cursors, like_place, scratch, commit, out, brains, scale, lo, hi
):
    """Range after range of [lo, hi): add all nodes' numbers to the memory or a copy, write what comes out.

    ``places`` and ``numbers`` are the addresses of each node's arrays; of ``out`` and ``brains`` (bfloat16
    seen as int16) at most one is not empty. Returns how many numbers were added.
    """
    added = np.int64(0)
    nodes = sizes.size
    for node in range(nodes):
        left, right = np.int64(0), sizes[node]
        while left < right:
            middle = (left + right) // 2
            if at_address(places[node], middle, like_place) < lo:
                left = middle + 1
            else:
                right = middle
        cursors[node] = left
    for begin in range(lo, hi, _RANGE):
        end = min(begin + _RANGE, hi)
        target, base = memory, np.int64(0)
        if not commit:
            # As one assignment of slices this takes numba three more seconds to compile.
            before = memory[begin:end]
            for i in range(before.size):
                scratch[i] = before[i]
            target, base = scratch, begin
        for node in range(nodes):
            at, weight, size = cursors[node], weights[node], sizes[node]
            while at < size:
                place = at_address(places[node], at, like_place)
                if place >= end:
                    break
                if place >= begin:
                    added += 1
                    target[place - base] += weight * at_address(numbers[node], at, memory)
                at += 1
            cursors[node] = at
        # Loops from 0 over views: LLVM makes vectors of them, for no index can be negative.
        source = target[begin - base : end - base]
        if out.size > 0:
            part = out[begin:end]
            for i in range(source.size):
                part[i] = source[i] * scale
        elif brains.size > 0:
            brain_part = brains[begin:end]
            for i in range(source.size):
                brain_part[i] = brain(source[i] * scale)
    return added


def add_nodes(memory, positions, values, weights, commit, out, brains, scale, threads):
    """As ``scatter.add_nodes_into``, of numpy arrays; ``out`` or ``brains`` may be empty."""
    places = np.array([array.ctypes.data for array in positions], np.int64)
    numbers = np.array([array.ctypes.data for array in values], np.int64)
    sizes = np.array([array.size for array in positions], np.int64)
    weights = np.array(weights, memory.dtype)
    scale = memory.dtype.type(scale)
    written = memory.size if out.size or brains.size else 0
    like_place = np.empty(0, np.int64)

    added = []

    def work(lo, hi):
        scratch = np.empty(0 if commit else min(_RANGE, memory.size), memory.dtype)
        cursors = np.zeros(sizes.size, np.int64)
        found = _add_nodes(
            memory, places, numbers, sizes, weights, cursors, like_place, scratch, commit, out, brains, scale,
            lo, hi,
        )  # fmt: skip
        added.append(found)
        return True

    _split(work, memory.size, min(threads, (int(sizes.sum()) + written // 8) // _WORTH))
    _require(sum(added) == sizes.sum())


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
