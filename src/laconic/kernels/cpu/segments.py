"""Element-wise loops over the segments of a group, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from laconic.kernels.cpu._halves import converted
from laconic.kernels.cpu._jit import inlined, loop


@inlined
def span(ends, s, first, last):
    """Where the coordinates [first, last) lie in segment s, counted from its start; perhaps nowhere."""
    begin = ends[s - 1] if s > 0 else 0
    return max(first - begin, 0), min(last, ends[s]) - begin


@loop
def add(out, out_starts, x, x_starts, y, y_starts, ends, first, last):
    """``out <- x + y`` at the coordinates from ``first`` up to ``last``, counted through all segments."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo < hi:
            sums = out[out_starts[s] + lo : out_starts[s] + hi]
            left, right = x[x_starts[s] + lo : x_starts[s] + hi], y[y_starts[s] + lo : y_starts[s] + hi]
            for i in range(sums.size):
                sums[i] = converted(left[i], sums) + converted(right[i], sums)


@loop
def copy(out, out_starts, x, x_starts, ends, first, last):
    """``out <- x`` at the coordinates from ``first`` up to ``last``, counted through all segments."""
    for s in range(ends.size):
        lo, hi = span(ends, s, first, last)
        if lo < hi:
            copies, source = (
                out[out_starts[s] + lo : out_starts[s] + hi],
                x[x_starts[s] + lo : x_starts[s] + hi],
            )
            for i in range(copies.size):
                copies[i] = converted(source[i], copies)
