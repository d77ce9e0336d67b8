"""Optimiser arithmetic on segments, compiled by numba at its first use; ``reference.optimizer`` defines it.

Each loop goes from coordinate ``first`` to ``last``, counted through all segments, which end at ``ends``. A
row of ``settings`` belongs to a segment. Products and sums are rounded one by one, in the order written.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

import numpy as np

from laconic.kernels.cpu._halves import converted
from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu.segments import span


@loop
def adamw_update(
    out,
    out_starts,
    x,
    x_starts,
    first_moment,
    first_starts,
    second,
    second_starts,
    settings,
    ends,
    first,
    last,
):
    """Normalised updates; the moments stay as they are."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo >= hi:
            continue
        factor, beta1, rest1, whole1 = settings[s, 0], settings[s, 1], settings[s, 2], settings[s, 3]
        beta2, rest2, whole2, eps, rate = (
            settings[s, 4],
            settings[s, 5],
            settings[s, 6],
            settings[s, 7],
            settings[s, 8],
        )
        updates = out[out_starts[s] + lo : out_starts[s] + hi]
        gradients = x[x_starts[s] + lo : x_starts[s] + hi]
        squares = second[second_starts[s] + lo : second_starts[s] + hi]
        if beta1 > 0:
            means = first_moment[first_starts[s] + lo : first_starts[s] + hi]
            for i in range(updates.size):
                g = converted(gradients[i], updates) * factor
                length = np.sqrt((squares[i] * beta2 + g * g * rest2) / whole2) + eps
                mean = (means[i] * beta1 + g * rest1) / whole1
                unfit = length - length  # 0, or NaN where the length is not finite
                updates[i] = (mean / length if unfit == 0 else unfit) * rate
        else:
            for i in range(updates.size):
                g = converted(gradients[i], updates) * factor
                length = np.sqrt((squares[i] * beta2 + g * g * rest2) / whole2) + eps
                unfit = length - length
                updates[i] = (g / length if unfit == 0 else unfit) * rate


@loop
def adamw_advance(
    first_moment,
    first_starts,
    second,
    second_starts,
    after,
    after_starts,
    x,
    x_starts,
    settings,
    ends,
    first,
    last,
):
    """The moments after the gradients."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo >= hi:
            continue
        factor, beta1, rest1 = settings[s, 0], settings[s, 1], settings[s, 2]
        beta2, rest2 = settings[s, 4], settings[s, 5]
        gradients = x[x_starts[s] + lo : x_starts[s] + hi]
        squares = second[second_starts[s] + lo : second_starts[s] + hi]
        moved = after[after_starts[s] + lo : after_starts[s] + hi]
        for i in range(squares.size):
            g = converted(gradients[i], squares) * factor
            moved[i] = squares[i] * beta2 + g * g * rest2
        if beta1 > 0:
            means = first_moment[first_starts[s] + lo : first_starts[s] + hi]
            for i in range(means.size):
                g = converted(gradients[i], means) * factor
                means[i] = means[i] * beta1 + g * rest1


@loop
def momentum_update(out, out_starts, x, x_starts, buffer, buffer_starts, settings, ends, first, last):
    """``out <- fl(fl(fl(buffer mu) + fl(x factor)) rate)``; ``out`` may be the buffer."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo >= hi:
            continue
        factor, mu, rate = settings[s, 0], settings[s, 1], settings[s, 2]
        updates = out[out_starts[s] + lo : out_starts[s] + hi]
        gradients = x[x_starts[s] + lo : x_starts[s] + hi]
        held = buffer[buffer_starts[s] + lo : buffer_starts[s] + hi]
        for i in range(updates.size):
            updates[i] = (held[i] * mu + converted(gradients[i], updates) * factor) * rate


@loop
def scale(out, out_starts, x, x_starts, settings, ends, first, last):
    """``out <- fl(fl(x factor) rate)``."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo >= hi:
            continue
        factor, rate = settings[s, 0], settings[s, 1]
        updates = out[out_starts[s] + lo : out_starts[s] + hi]
        gradients = x[x_starts[s] + lo : x_starts[s] + hi]
        for i in range(updates.size):
            updates[i] = converted(gradients[i], updates) * factor * rate


@loop
def apply(parameters, parameter_starts, x, x_starts, settings, ends, first, last):
    """``parameters <- fl(fl(parameters decay) - fl(x rate))``."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo >= hi:
            continue
        decay, rate = settings[s, 0], settings[s, 1]
        moved = parameters[parameter_starts[s] + lo : parameter_starts[s] + hi]
        steps = x[x_starts[s] + lo : x_starts[s] + hi]
        for i in range(moved.size):
            moved[i] = converted(converted(moved[i], steps) * decay - steps[i] * rate, moved)
