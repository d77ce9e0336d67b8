"""Signed codes in the narrowest integers, compiled by numba at its first use.

The loops that make codes are long, and would take long to be compiled for each width. They work on int32
pieces in the cache, which are copied where they belong with the signs added.
"""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from laconic.kernels.cpu._jit import inner_loop


@inner_loop
def put_signed(numbers, levels, at, codes):
    """The levels with the signs of the numbers, from ``at`` on; ``codes`` as ``views_by_dtype`` gives."""
    end = at + levels.size
    if codes[0].size > 0:
        _signed(numbers, levels, codes[0][at:end])
    elif codes[1].size > 0:
        _signed(numbers, levels, codes[1][at:end])
    else:
        _signed(numbers, levels, codes[2][at:end])


@inner_loop
def _signed(numbers, levels, codes):
    for i in range(codes.size):
        codes[i] = -levels[i] if numbers[i] < 0 else levels[i]
