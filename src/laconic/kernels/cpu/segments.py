"""Element-wise loops over the segments of a group, compiled by numba at their first use."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from laconic.kernels.cpu._halves import converted
from laconic.kernels.cpu._jit import loop


@loop
def add(out, out_starts, x, x_starts, y, y_starts, ends, first, last):
    """``out <- x + y`` at the coordinates from ``first`` up to ``last``, counted through all segments."""
    begin = 0
    for s in range(ends.size):
        lo, hi = max(first - begin, 0), min(last, ends[s]) - begin
        if lo < hi:
            sums = out[out_starts[s] + lo : out_starts[s] + hi]
            left, right = x[x_starts[s] + lo : x_starts[s] + hi], y[y_starts[s] + lo : y_starts[s] + hi]
            for i in range(sums.size):
                sums[i] = converted(left[i], sums) + converted(right[i], sums)
        begin = ends[s]


@loop
def copy(out, out_starts, x, x_starts, ends, first, last):
    """``out <- x`` at the coordinates from ``first`` up to ``last``, counted through all segments."""
    begin = 0
    for s in range(ends.size):
        lo, hi = max(first - begin, 0), min(last, ends[s]) - begin
        if lo < hi:
            copies, source = (
                out[out_starts[s] + lo : out_starts[s] + hi],
                x[x_starts[s] + lo : x_starts[s] + hi],
            )
            for i in range(copies.size):
                copies[i] = converted(source[i], copies)
        begin = ends[s]
