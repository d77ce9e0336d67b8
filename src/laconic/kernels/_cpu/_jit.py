"""How every loop of this room is compiled.

Without the interpreter's lock, so that our own threads run side by side; without fast mathematics, so that
nothing is reordered and no product is fused with a sum; kept on disk where a folder can be written.
"""
# mypy: ignore-errors
# numba has no types.

from numba import njit

_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def loop(function):
    """The function, compiled at its first call for each kind of arguments.

    numba refuses to keep compiled code where neither the folder of the source, nor the user's cache, nor
    NUMBA_CACHE_DIR can be written. Then each process compiles for itself.
    """
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError):
        return njit(**_OPTIONS)(function)


def keeps():
    """Whether compiled code is kept on disk."""
    return loop(_nothing).stats.cache_path is not None


def _nothing():
    pass
